"""Sentiment of English text."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Sentiment:
    """How positive the English text is: VADER's compound score, from -1 to 1.

    The empty text and one without a word of the lexicon score 0. Capitals, exclamation marks,
    emoticons and emoji count.

    Args:
        wanted: "positive" pays the compound score, "negative" its opposite.

    Raises:
        ValueError: If `wanted` is something else.

    Source: C. J. Hutto and E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text, ICWSM 2014; computed by vaderSentiment.
    """

    wanted: str = "positive"

    def __post_init__(self) -> None:
        if self.wanted not in ("positive", "negative"):
            raise ValueError(f"sentiment: wanted is 'positive' or 'negative', got {self.wanted!r}.")

    def __call__(self, text: str) -> float:
        """The compound score, or its opposite."""
        compound: float = _analyzer().polarity_scores(text)["compound"]
        return compound if self.wanted == "positive" else -compound


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """VADER with its lexicon of 7,500 words, which takes a moment to read."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    with warnings.catch_warnings():
        # It reads its lexicon with codecs.open, deprecated since Python 3.14.
        warnings.simplefilter("ignore", DeprecationWarning)
        return SentimentIntensityAnalyzer()
