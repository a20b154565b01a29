"""Character and word error rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rapidfuzz.distance import Levenshtein

from textgym.rewards.parameters import check_choice


@dataclass(frozen=True)
class ErrorRate:
    """Minus the character or word error rate against the reference; 0 is perfect, and success.

    The score is -d / n, where d is the Levenshtein distance from the text to the reference
    (insertions, deletions, substitutions) and n the length of the reference, both in characters
    or in words (split at white space). There is no lowest score: a text of m units more than the
    reference scores -m / n or less. An empty reference counts as one unit long. Space around the
    text does not matter.

    The empty text scores -1. Since the immediate reward counts from 0, the first token is paid -1
    and what it gained.

    Args:
        unit: "character" for the character error rate (CER), "word" for the word error rate (WER).
        ignore_case: Compare without regard to case.

    Raises:
        ValueError: If `unit` is something else.

    Source: V. I. Levenshtein, 1966; computed by RapidFuzz.
    """

    unit: str = "character"
    ignore_case: bool = False

    score_range: ClassVar[tuple[float, float]] = (-math.inf, 0.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_choice("error_rate", "unit", self.unit, ("character", "word"))

    def __call__(self, text: str, reference: str) -> float:
        """Minus the error rate."""
        wanted = self._units(reference)
        return -Levenshtein.distance(self._units(text), wanted) / max(len(wanted), 1)

    def _units(self, text: str) -> Sequence[str]:
        if self.ignore_case:
            text = text.casefold()
        return text.split() if self.unit == "word" else text.strip()
