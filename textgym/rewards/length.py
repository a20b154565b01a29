"""Length, free or towards a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows


@dataclass(frozen=True)
class Length:
    """How long the text is, or how near its length is to a target.

    With t tokens, the end-of-text token not counted, the score is t / `max_new_tokens`, from 0
    to 1. With a target of n tokens it is 1 - |t - n| / n: 0 for the empty text, 1 at the target,
    0 again at twice the target and negative beyond.

    Args:
        target: Wanted length in tokens; None for the longer the better.

    Raises:
        ValueError: If the target is not a whole number of at least 1.
    """

    target: int | None = None

    def __post_init__(self) -> None:
        target = self.target
        if target is None:
            return
        if not isinstance(target, int) or isinstance(target, bool) or target < 1:
            raise ValueError(
                f"length: target is a whole number of tokens, at least 1, got {target!r}."
            )

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing to remember: the length is in the completions."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the score gained by the token, float32 (k,)."""
        written = completions.lengths(rows)
        length = written - (tokens == completions.tokenizer.eos_token_id)
        budget = completions.max_new_tokens
        gain = self._score(length, budget) - self._score(written - 1, budget)
        return gain.astype(np.float32)

    def _score(self, length: NDArray[np.int64], budget: int) -> NDArray[np.float64]:
        score: NDArray[np.float64]
        if self.target is None:
            score = length / budget
        else:
            score = 1.0 - np.abs(length - self.target) / self.target
        return score
