"""Edit distance to a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class EditDistance:
    """How near the text is to its reference by edits, from 0 to 1; 1 counts as success.

    The score is 1 - d / max(|text|, |reference|), where d is the Levenshtein distance in
    characters (insertions, deletions, substitutions); 1 is equality. The empty text scores 0, or 1
    if the reference is empty too. Space around the text does not matter.

    Source: V. I. Levenshtein, 1966; computed by RapidFuzz.
    """

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = 1.0

    def __call__(self, text: str, reference: str) -> float:
        """The normalised similarity of a text and its reference."""
        return Levenshtein.normalized_similarity(text.strip(), reference.strip())
