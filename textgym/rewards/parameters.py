"""Checks of what a reward is given, with one wording for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_whole_number(
    reward: str, parameter: str, value: Any, least: int, most: int | None = None
) -> None:
    """Refuse what is no whole number in a range.

    Args:
        reward: Name of the reward, for the message.
        parameter: Name of the parameter.
        value: What was given.
        least: The smallest that will do.
        most: The largest, if there is one.

    Raises:
        ValueError: If it is something else; a bool is no number.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        range_ = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{reward}: {parameter} is a whole number {range_}, got {value!r}.")


def check_choice(reward: str, parameter: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of some choices, of which there are two at least.

    Raises:
        ValueError: If it is something else.
    """
    if value not in choices:
        *others, last = map(repr, choices)
        listed = f"{', '.join(others)} or {last}"
        raise ValueError(f"{reward}: {parameter} is {listed}, got {value!r}.")
