"""Rows of SB3's log, for whom they are news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.logger import KVWriter


class Tap(KVWriter):
    """Hands on each row that is logged, whichever algorithm writes it, and when.

    Args:
        hear: Takes a row, by column.
    """

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self._hear = hear

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Called by SB3's logger."""
        self._hear(key_values)

    def close(self) -> None:
        """There is nothing to close."""
