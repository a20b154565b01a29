"""Right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ExactMatch:
    """+1 if the text is its reference, -1 if it is not; +1 counts as success.

    Args:
        ignore_case: Compare without regard to case.

    Space around the text does not matter. A text still being written is wrong until it is right,
    so that the immediate reward is -1 for the first token, +2 for the one that completes the
    reference and -2 for one that spoils it.
    """

    ignore_case: bool = False

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = 1.0

    def __call__(self, text: str, reference: str) -> float:
        """+1.0 or -1.0."""
        text, reference = text.strip(), reference.strip()
        if self.ignore_case:
            text, reference = text.casefold(), reference.casefold()
        return 1.0 if text == reference else -1.0
