"""Words in common with a reference."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class TokenF1:
    """The F1 of the words that the text shares with its reference, from 0 to 1; 1 is success.

    With c words in common (each as often as both have it) of m in the text and n in the
    reference, precision is c / m, recall c / n, and the score their harmonic mean, 2c / (m + n).
    The order of the words does not matter. Without a word on one side the score is 0, without one
    on either it is 1. The empty text scores 0 unless the reference has no word either.

    Args:
        normalize: Compare as SQuAD does: in lower case, without ASCII punctuation and without the
            English articles a, an, the. If False, words are what stands between white space.

    Source: P. Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text,
    EMNLP 2016; no word on either side as in SQuAD 2.0.
    """

    normalize: bool = True

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = 1.0

    def __call__(self, text: str, reference: str) -> float:
        """The F1."""
        words, wanted = _words(text, self.normalize), _reference_words(reference, self.normalize)
        total = len(words) + wanted.total()
        common = sum(min(k, wanted.get(word, 0)) for word, k in Counter(words).items())
        return 2 * common / total if total else 1.0


def _words(text: str, normalize: bool) -> list[str]:
    if not normalize:
        return text.split()
    words = text.lower().translate(_PUNCTUATION).split()
    return [word for word in words if word not in _ARTICLES]


@lru_cache(maxsize=1024)
def _reference_words(reference: str, normalize: bool) -> Counter[str]:
    return Counter(_words(reference, normalize))
