"""Sentiment of English text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, ClassVar

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from textgym.completion import Sample
from textgym.rewards.base import Score
from textgym.rewards.make import build


@dataclass(frozen=True)
class Sentiment:
    """How positive the English text is: VADER's compound score, from -1 to 1.

    The empty text and one without a word of the lexicon score 0. Capitals, exclamation marks,
    emoticons and emoji count.

    With a `classifier` the score is 2 p - 1, from -1 to 1 too, with p the probability that it
    gives to the label; of the empty text it is what the classifier says.

    Args:
        wanted: "positive" pays the score, "negative" its opposite.
        classifier: A model to judge in VADER's place, in any language that it knows: a directory
            or hub id, as for the reward "classifier".
        label: What the classifier calls a positive text; None for "POSITIVE".

    Raises:
        FileNotFoundError: If there is no such classifier.
        ValueError: If `wanted` is something else, the classifier has no such label, or there is a
            label and no classifier.

    Source: C. J. Hutto and E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text, ICWSM 2014; computed by vaderSentiment.
    """

    wanted: str = "positive"
    classifier: str | None = None
    label: str | None = None

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.wanted not in ("positive", "negative"):
            raise ValueError(f"sentiment: wanted is 'positive' or 'negative', got {self.wanted!r}.")
        if self.classifier is None and self.label is not None:
            raise ValueError(
                f"sentiment: the label {self.label!r} is one of a classifier, and there is none. "
                "Give a model as classifier=, or leave the label out."
            )
        if self.classifier is not None:
            label = "POSITIVE" if self.label is None else self.label
            # By name: it needs torch, which this package does without.
            judge = build("classifier", model=self.classifier, label=label)
            object.__setattr__(self, "_judge", judge)

    def __call__(self, text: str) -> float:
        """The score of one text."""
        return self.score([Sample("", text, None, [], {})])[0]

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """How positive, or negative, each sample is."""
        judge: Score | None = vars(self).get("_judge")
        if judge is None:
            polarity = _analyzer().polarity_scores
            scores: list[float] = [polarity(sample.text)["compound"] for sample in samples]
        else:
            scores = [2.0 * probability - 1.0 for probability in judge.score(samples)]
        return scores if self.wanted == "positive" else [-score for score in scores]


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
