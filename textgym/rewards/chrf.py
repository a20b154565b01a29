"""chrF, a metric of translation that looks at characters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

from textgym.arguments import is_number
from textgym.extras import require
from textgym.rewards.parameters import check_whole_number

_require = partial(require, extra="metrics", wanted_by="reward 'chrf'")


@dataclass(frozen=True)
class Chrf:
    """The chrF score against the reference, from 0 to 1; 1 counts as success.

    The F-score of the text's n-grams of 1 to `char_order` characters, white space left out, with
    recall weighing `beta` times as much as precision. It sees half-written words and inflected
    forms, where BLEU sees none, and suits languages without spaces. With no n-gram in common, as
    for the empty text, it is 0.

    Args:
        char_order: The longest n-grams of characters.
        word_order: The longest n-grams of words that count beside them; 2 gives chrF++.
        beta: Weight of recall against precision.
        lowercase: Compare without regard to case.

    Raises:
        ValueError: If an order or the weight is out of range.
        MissingExtra: If sacrebleu is not installed.

    Source: M. Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015;
    computed by sacreBLEU, `sentence_score` / 100.
    """

    char_order: int = 6
    word_order: int = 0
    beta: float = 2
    lowercase: bool = False

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference; sacrebleu"
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_whole_number("chrf", "char_order", self.char_order, least=1, most=100)
        check_whole_number("chrf", "word_order", self.word_order, least=0, most=100)
        beta = self.beta
        if not is_number(beta) or not 0 < beta < math.inf:
            raise ValueError(f"chrf: beta is a number above 0, got {beta!r}.")
        _require("sacrebleu.metrics")

    def __call__(self, text: str, reference: str) -> float:
        """The score."""
        metric = _metric(reference, self.char_order, self.word_order, self.beta, self.lowercase)
        score: float = metric.corpus_score([text], None).score / 100
        return min(score, 1.0)  # for a beta with which the F-score of 1 and 1 is rounded up


# The corpus score of one text is its sentence score, and reads the n-grams of the reference from
# where the metric keeps them.
@lru_cache(maxsize=1024)
def _metric(reference: str, char_order: int, word_order: int, beta: float, lowercase: bool) -> Any:
    metrics = _require("sacrebleu.metrics")
    return metrics.CHRF(
        char_order=char_order,
        word_order=word_order,
        beta=beta,
        lowercase=lowercase,
        references=[[reference]],
    )
