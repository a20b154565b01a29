"""Wanted words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Keywords:
    """The share of the wanted words that the text has used, from 0 to 1; 1 counts as success.

    Args:
        words: The words, at least one; case is ignored, and only whole words count.
    """

    words: Sequence[str] = ("love", "king", "heart", "friend", "sweet")

    success_threshold = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or not self.words or not all(self.words):
            raise ValueError(
                f"keywords: expected a list of words, such as ['love', 'king'], got {self.words!r}."
            )
        patterns = [
            re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in self.words
        ]
        object.__setattr__(self, "_patterns", patterns)

    def __call__(self, text: str) -> float:
        """The share of the words found."""
        patterns: list[re.Pattern[str]] = self.__dict__["_patterns"]
        return sum(pattern.search(text) is not None for pattern in patterns) / len(patterns)
