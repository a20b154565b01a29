"""Length: the longer or the shorter the better, or towards a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows, index
from textgym.rewards.parameters import check_choice, check_whole_number


@dataclass
class Length:
    """How long the text is, from 0 to 1; how short, from -1 to 0; or how near a target, up to 1.

    With t tokens, those that end a text or a turn not counted, the score is

    * t / `max_new_tokens` where a long text is wanted, from 0 to 1: each token earns its share;
    * -t / `max_new_tokens` where a short one is, from -1 to 0: each token costs its share, and the
      empty text is the best;
    * 1 - |t - n| / n with a target of n tokens: 0 for the empty text, 1 at the target, 0 again at
      twice the target and negative beyond.

    In a task of several turns t counts the tokens of all turns.

    Args:
        target: Wanted length in tokens; None for what `wanted` says.
        wanted: "long" or "short"; without a target only.

    Raises:
        ValueError: If the target is not a whole number of at least 1, `wanted` is something else,
            or "short" has a target.
    """

    target: int | None = None
    wanted: str = "long"
    _lengths: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False, compare=False
    )

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
        """Nothing is written yet in `rows`."""
        if len(self._lengths) != completions.num_rows:
            self._lengths = np.zeros(completions.num_rows, np.int64)
        self._lengths[rows] = 0

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the score gained by the token, float32 (k,)."""
        counted = ~completions.is_end[tokens]
        share: NDArray[np.float64] | float
        if self.target is None:
            share = (1.0 if self.wanted == "long" else -1.0) / completions.max_new_tokens
        else:
            where = index(rows, completions.num_rows)
            lengths = self._lengths[where] + counted
            self._lengths[where] = lengths
            share = np.where(lengths <= self.target, 1.0, -1.0) / self.target
        return np.where(counted, share, 0.0).astype(np.float32)
