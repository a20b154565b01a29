"""ROUGE, the metric of summaries."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, ClassVar

from rapidfuzz.distance import LCSseq

from textgym.extras import require
from textgym.rewards.parameters import check_choice

_FIELDS = {"f": "fmeasure", "precision": "precision", "recall": "recall"}

_require = partial(require, extra="metrics", wanted_by="reward 'rouge'")


@dataclass(frozen=True)
class Rouge:
    """ROUGE of the text against the reference, from 0 to 1.

    What text and reference share, as a part of the text (precision), of the reference (recall) or
    their harmonic mean (f). Words are runs of ASCII letters and digits, in lower case: a text in
    another script has none and scores 0, and so does the empty text.

    No score counts as success. A score of 1 does not mean that the text is the reference: case and
    punctuation do not matter, nor with "rouge1" the order of words; precision has it for a part of
    the reference, recall for a text that holds the reference among other words.

    Args:
        kind: What is shared: "rouge1" to "rouge9" for n-grams of so many words, "rougeL" for the
            longest common subsequence of words, "rougeLsum" for that of each pair of lines.
        measure: "f", "precision" or "recall". Recall alone pays for ever longer texts, precision
            alone for short ones.
        stem: Cut words to their stems (Porter's, for English).

    Raises:
        ValueError: If a parameter is none of these.
        MissingExtra: If rouge-score is not installed.

    Source: C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of Summaries, ACL 2004; computed
    by rouge-score, common subsequences by RapidFuzz.
    """

    kind: str = "rougeL"
    measure: str = "f"
    stem: bool = False

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference; rouge-score"

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not re.fullmatch(r"rouge([1-9]|L|Lsum)", self.kind):
            raise ValueError(
                f"rouge: kind is 'rouge1' to 'rouge9', 'rougeL' or 'rougeLsum', got {self.kind!r}."
            )
        check_choice("rouge", "measure", self.measure, list(_FIELDS))
        _require("rouge_score.rouge_scorer")

    def __call__(self, text: str, reference: str) -> float:
        """The score."""
        if self.kind == "rougeLsum":
            scored = _summary_scorer(self.stem).score(reference, text)[self.kind]
            return float(getattr(scored, _FIELDS[self.measure]))
        words, wanted = _words(text, self.stem), _reference_words(reference, self.stem)
        n = 1
        if self.kind == "rougeL":
            shared = LCSseq.similarity(words, wanted)
        else:
            n = int(self.kind.removeprefix("rouge"))
            ngrams = _reference_ngrams(wanted, n)
            shared = sum(min(k, ngrams.get(it, 0)) for it, k in _ngrams(words, n).items())
        precision = shared / max(len(words) - n + 1, 1)
        recall = shared / max(len(wanted) - n + 1, 1)
        if self.measure == "precision" or not shared:
            return precision
        return recall if self.measure == "recall" else 2 * precision * recall / (precision + recall)


def _words(text: str, stem: bool) -> tuple[str, ...]:
    words = _tokenizer().tokenize(text)
    return tuple(stemmed for word in words for stemmed in _stemmed(word)) if stem else tuple(words)


@lru_cache(maxsize=1 << 16)
def _stemmed(word: str) -> list[str]:
    stemmed: list[str] = _stemming_tokenizer().tokenize(word)
    return stemmed


def _ngrams(words: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[k:] for k in range(n)), strict=False))


@lru_cache(maxsize=1024)
def _reference_words(reference: str, stem: bool) -> tuple[str, ...]:
    return _words(reference, stem)


@lru_cache(maxsize=1024)
def _reference_ngrams(words: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return _ngrams(words, n)


@cache
def _tokenizer() -> Any:
    return _require("rouge_score.tokenizers").DefaultTokenizer()


@cache
def _stemming_tokenizer() -> Any:
    return _require("rouge_score.tokenizers").DefaultTokenizer(use_stemmer=True)


@cache
def _summary_scorer(stem: bool) -> Any:
    scorer = _require("rouge_score.rouge_scorer").RougeScorer
    return scorer(["rougeLsum"], tokenizer=_stemming_tokenizer() if stem else _tokenizer())
