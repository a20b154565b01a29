"""Sentiment of English text."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


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


class _Analyzer(SentimentIntensityAnalyzer):  # type: ignore[misc]  # the library has no types
    """VADER that remembers how it rated a word among its neighbours.

    The rating of a word depends on the three words before it, the two after it and on whether
    the text mixes capitals with lower case. So when a token is added to a text, all but its last
    words are rated already, and they are what VADER spends most of its time on.
    """

    def sentiment_valence(
        self, valence: float, text: Any, word: str, place: int, valences: list[float]
    ) -> list[float]:
        """Append the rating of the word at `place` to those of the words before it."""
        if word.lower() in self.lexicon:
            start = max(0, place - 3)
            near = tuple(text.words_and_emoticons[start : place + 3])
            valence = _rating(near, place - start, text.is_cap_diff)
        valences.append(valence)
        return valences

    def rate(self, words: tuple[str, ...], place: int, mixed_case: bool) -> float:
        """The rating of one word among these, by VADER's rules."""
        text = SimpleNamespace(words_and_emoticons=words, is_cap_diff=mixed_case)
        rating: float = super().sentiment_valence(0.0, text, words[place], place, [])[0]
        return rating


@lru_cache(maxsize=1 << 16)
def _rating(words: tuple[str, ...], place: int, mixed_case: bool) -> float:
    return _analyzer().rate(words, place, mixed_case)


@cache
def _analyzer() -> _Analyzer:
    """VADER with its lexicon of 7,500 words, which takes a moment to read."""
    with warnings.catch_warnings():
        # It reads its lexicon with codecs.open, deprecated since Python 3.14.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _Analyzer()
