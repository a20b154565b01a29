"""Wanted words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Keywords:
    """The share of the wanted words that the text has used, from 0 to 1; 1 counts as success.

    Only whole words count, so a word that is found can be lost again as it grows into another
    (king, kingdom).

    Args:
        words: The words or phrases, at least one; case is ignored.

    Raises:
        ValueError: If `words` is not a list of words.
    """

    words: Sequence[str] = ("love", "king", "heart", "friend", "sweet")

    success_threshold = 1.0

    def __post_init__(self) -> None:
        words = self.words
        named = isinstance(words, (list, tuple)) and all(isinstance(w, str) and w for w in words)
        if not named or not words:
            raise ValueError(
                f"keywords: expected a list of words, such as ['love', 'king'], got {words!r}."
            )

    def __call__(self, text: str) -> float:
        """The share of the words found."""
        return sum(_pattern(word).search(text) is not None for word in self.words) / len(self.words)


@cache
def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
