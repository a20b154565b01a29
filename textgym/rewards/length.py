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
    to 1; with a target n it is 1 - |t - n| / n, which is 1 at the target and may fall below 0.

    Args:
        target: Wanted length in tokens; None for the longer the better.
    """

    target: int | None = None

    def __post_init__(self) -> None:
        if self.target is not None and self.target < 1:
            raise ValueError(f"length: target is a number of tokens >= 1, got {self.target}.")

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing to remember: the length is in the completions."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the score gained by the token, float32 (k,)."""
        written = completions.lengths(rows)
        length = written - (tokens == completions.tokenizer.eos_token_id)
        budget = completions.max_new_tokens
        # The score of the empty text counts as 0, so the first token is paid the whole score.
        before = np.where(written == 1, 0.0, self._score(written - 1, budget))
        return (self._score(length, budget) - before).astype(np.float32)

    def _score(self, length: NDArray[np.int64], budget: int) -> NDArray[np.float64]:
        score: NDArray[np.float64]
        if self.target is None:
            score = length / budget
        else:
            score = 1.0 - np.abs(length - self.target) / self.target
        return score
