"""Ending by oneself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.arguments import is_number
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.base import RewardError


@dataclass(frozen=True)
class Eos:
    """1 if the text ended with an end-of-text token, 0 if it was cut; 1 counts as success.

    It is paid with the last token, and any token that ends texts of the model will do: a chat model
    has one that ends its turn, and often another. A text that is cut is one that the budget ended,
    or a `stop` string. Ending at once, with an empty text, earns 1 as well: this is a condition on
    other rewards.

    In a task of several turns the last token of the last turn decides. A turn after which the
    episode goes on earns nothing.

    Args:
        missing: The score of a text that was cut, below 1; -1.0 makes it a penalty.

    Raises:
        ValueError: If `missing` is not a finite number below 1.
        RewardError: When an episode begins, if the tokenizer has no end-of-text token.
    """

    missing: float = 0.0

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        missing = self.missing
        if not is_number(missing) or not -math.inf < missing < 1.0:
            raise ValueError(
                f"eos: missing is a finite number below 1, such as -1.0, got {missing!r}."
            )
        object.__setattr__(self, "score_range", (float(missing), 1.0))

    def start(self, rows: Rows, completions: Completions) -> None:
        """Make sure that there is such a token."""
        if not completions.is_end.any():
            problem = (
                f"pays for an end-of-text token, and {completions.tokenizer} has none; choose "
                "another tokenizer, or leave this reward out"
            )
            raise RewardError("eos", problem, completions.sample(int(rows[0])))

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The score where the episode ended, 0 elsewhere, float32 (k,)."""
        score = np.where(completions.is_end[tokens], 1.0, self.missing)
        return np.where(completions.ended[rows], score, 0.0).astype(np.float32)
