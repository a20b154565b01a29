"""How different texts are from each other, and how much a text repeats itself."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence

# Chinese and Japanese are written without spaces: a character counts as a word there.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*")


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation, alike for models of any tokenizer."""
    return _WORD.findall(text.casefold())


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All runs of n items, in order."""
    return [tuple(items[begin : begin + n]) for begin in range(len(items) - n + 1)]


def distinct(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """distinct-n: the share of the n-grams of all texts that are distinct; NaN if there are none.

    It falls with the number of texts and their length: compare it for as many texts.

    Source: J. Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models,
    NAACL 2016, who divide by the number of words.
    """
    found = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else math.nan


def different(texts: Sequence[str]) -> float:
    """The share of the texts that would be left were each kept once; NaN if there are none."""
    return len(set(texts)) / len(texts) if texts else math.nan


def repetition(text: Sequence[Hashable], n: int = 4) -> float:
    """rep-n: the share of a text's n-grams that it has had before; 0 for a text shorter than n.

    Source: S. Welleck et al., Neural Text Generation with Unlikelihood Training, ICLR 2020.
    """
    found = ngrams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0
