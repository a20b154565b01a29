"""BLEU, the metric of machine translation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

from textgym.extras import require
from textgym.rewards.parameters import check_choice, check_whole_number

_TOKENIZERS = ("13a", "intl", "char", "zh", "none")
"""Those of sacreBLEU that need no other package and no download."""

_SMOOTHINGS = ("exp", "floor", "add-k", "none")

_require = partial(require, extra="metrics", wanted_by="reward 'bleu'")


@dataclass(frozen=True)
class Bleu:
    """Sentence BLEU against the reference, from 0 to 1; 1 counts as success.

    The geometric mean of the shares of the text's n-grams of 1 to `max_order` words that are in
    the reference, times exp(1 - |reference| / |text|) for a text that is shorter. Only the orders
    that the text is long enough for count (`effective_order`), so a text still being written earns
    from its first right word on. A text without a word of the reference scores 0, as does the
    empty text.

    Args:
        max_order: The longest n-grams, in words.
        lowercase: Compare without regard to case.
        tokenize: How to find words: "13a" as is usual for Western languages, "intl" by Unicode
            classes, "zh" for Chinese, "char" for characters, "none" for white space.
        smooth: What an order without a match counts: "exp" half of the one before, "floor" 0.1
            matches, "add-k" one match in every order, "none" nothing, so that the score is 0.

    Raises:
        ValueError: If a parameter is none of these.
        MissingExtra: If sacrebleu is not installed.

    Source: K. Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation,
    ACL 2002; computed by sacreBLEU (M. Post, 2018), `sentence_score` / 100.
    """

    max_order: int = 4
    lowercase: bool = False
    tokenize: str = "13a"
    smooth: str = "exp"

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference; sacrebleu"
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_whole_number("bleu", "max_order", self.max_order, least=1, most=100)
        check_choice("bleu", "tokenize", self.tokenize, _TOKENIZERS)
        check_choice("bleu", "smooth", self.smooth, _SMOOTHINGS)
        _require("sacrebleu.metrics")

    def __call__(self, text: str, reference: str) -> float:
        """The score."""
        metric = _metric(reference, self.max_order, self.lowercase, self.tokenize, self.smooth)
        score: float = metric.corpus_score([text], None).score / 100
        return min(score, 1.0)  # exp(log(100)) is a little more than 100


# The corpus score of one text is its sentence score, and reads the n-grams of the reference from
# where the metric keeps them.
@lru_cache(maxsize=1024)
def _metric(reference: str, max_order: int, lowercase: bool, tokenize: str, smooth: str) -> Any:
    metrics = _require("sacrebleu.metrics")
    return metrics.BLEU(
        lowercase=lowercase,
        force=True,
        tokenize=tokenize,
        smooth_method=smooth,
        max_ngram_order=max_order,
        effective_order=True,
        references=[[reference]],
    )
