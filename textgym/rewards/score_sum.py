"""Several scores of a text as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.completion import Sample
from textgym.rewards.base import Score


class ScoreSum:
    """The sum of scores, each times its weight.

    Args:
        scores: At least one.
        weights: As many.

    Attributes:
        text_only: Whether the token ids matter to none of them.
    """

    def __init__(self, scores: Sequence[Score], weights: Sequence[float]) -> None:
        self._scores = list(scores)
        self._weights = list(weights)
        self.text_only = all(getattr(score, "text_only", False) for score in scores)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The sum for each sample."""
        total = np.zeros(len(samples))
        for score, weight in zip(self._scores, self._weights, strict=True):
            total += weight * np.asarray(score.score(samples), np.float64)
        return [float(value) for value in total]
