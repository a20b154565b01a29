"""Wanted words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textgym.rewards.words import check_words, word_pattern


@dataclass(frozen=True)
class Keywords:
    """The share of the wanted words that the text has used, from 0 to 1; 1 counts as success.

    Only whole words count, so a word that is found can be lost again as it grows into another
    (king, kingdom). The empty text scores 0.

    Args:
        words: The words or phrases, at least one; case is ignored.

    Raises:
        ValueError: If `words` is not a list of words.
    """

    words: Sequence[str] = ("love", "king", "heart", "friend", "sweet")

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_words("keywords", self.words, "['love', 'king']")

    def __call__(self, text: str) -> float:
        """The share of the words found."""
        text = text.casefold()
        found = sum(word_pattern(word).search(text) is not None for word in self.words)
        return found / len(self.words)
