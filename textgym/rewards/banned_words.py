"""Unwanted words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textgym.rewards.words import check_words, word_pattern


@dataclass(frozen=True)
class BannedWords:
    """Minus one for each use of a banned word, at most 0; 0 counts as success.

    Every use costs 1 as soon as it is written. Only whole words count, so what a word has cost is
    paid back if it grows into another (just, justice). The empty text scores 0: this reward is
    not one to be won, but a condition on others.

    Args:
        words: The words or phrases, at least one; case is ignored. By default the intensifiers
            that style guides advise against.

    Raises:
        ValueError: If `words` is not a list of words.
    """

    words: Sequence[str] = ("very", "really", "just", "quite", "rather")

    score_range: ClassVar[tuple[float, float]] = (-math.inf, 0.0)
    success_threshold: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_words("banned_words", self.words, "['very', 'really']")

    def __call__(self, text: str) -> float:
        """Minus the number of uses."""
        text = text.casefold()
        uses = sum(1 for word in self.words for _ in word_pattern(word).finditer(text))
        return -float(uses) if uses else 0.0
