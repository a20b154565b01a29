"""Length: the longer or the shorter the better, or towards a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.parameters import check_choice, check_whole_number


@dataclass(frozen=True)
class Length:
    """How long the text is, from 0 to 1; how short, from -1 to 0; or how near a target, up to 1.

    With t tokens, the end-of-text token not counted, the score is

    * t / `max_new_tokens` where a long text is wanted, from 0 to 1: each token earns its share;
    * -t / `max_new_tokens` where a short one is, from -1 to 0: each token costs its share, and the
      empty text is the best;
    * 1 - |t - n| / n with a target of n tokens: 0 for the empty text, 1 at the target, 0 again at
      twice the target and negative beyond.

    Args:
        target: Wanted length in tokens; None for what `wanted` says.
        wanted: "long" or "short"; without a target only.

    Raises:
        ValueError: If the target is not a whole number of at least 1, `wanted` is something else,
            or "short" has a target.
    """

    target: int | None = None
    wanted: str = "long"

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        target, wanted = self.target, self.wanted
        check_choice("length", "wanted", wanted, ("long", "short"))
        if target is None:
            if wanted == "short":
                object.__setattr__(self, "score_range", (-1.0, 0.0))
            return
        check_whole_number("length", "target", target, least=1)
        if wanted == "short":
            raise ValueError(
                f"length: wanted='short' goes without a target, got target={target}; leave one out."
            )
        object.__setattr__(self, "score_range", (-math.inf, 1.0))

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
        if self.target is not None:
            score = 1.0 - np.abs(length - self.target) / self.target
        elif self.wanted == "long":
            score = length / budget
        else:
            score = -length / budget
        return score
