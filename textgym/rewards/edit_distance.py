"""Edit distance to a reference."""

from __future__ import annotations

from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class EditDistance:
    """How near the text is to its reference, by the edits that lie between them.

    The score is 1 - d / max(|text|, |reference|), where d is the Levenshtein distance in
    characters (insertions, deletions, substitutions), from 0 to 1; 1 is equality and counts as
    success. Space around the text does not matter.

    Source: V. I. Levenshtein, 1966; computed by RapidFuzz.
    """

    success_threshold = 1.0

    def __call__(self, text: str, reference: str) -> float:
        """The normalised similarity of a text and its reference."""
        return Levenshtein.normalized_similarity(text.strip(), reference.strip())
