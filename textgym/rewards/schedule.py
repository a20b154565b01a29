"""A weight that rises or falls with the number of tokens written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.arguments import is_number
from textgym.rewards.combine import WeightedSum
from textgym.rewards.curriculum import Terms
from textgym.rewards.make import RewardSpec, make
from textgym.rewards.shaping import Every, Timing

Shape = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """Another reward with a weight that goes from one value to another: warm-up or annealing.

    An episode is paid by the weight that held when it began: the scheduled factor times the
    reward's own. The range is that of the reward. Logs and evaluations show its score as it is.

    Args:
        reward: The reward, as any spec that `make` takes.
        start: The factor at the beginning.
        end: The factor from then on.
        tokens: How many tokens the way from one to the other takes, at least 1; counted over all
            rows of an environment.
        after: How many tokens it waits before it sets out.
        shape: "linear", or "cosine" for a slow beginning and end.

    Raises:
        ValueError: If a factor, a number of tokens or the shape is refused.
    """

    reward: RewardSpec
    start: float = 0.0
    end: float = 1.0
    tokens: int = 20_000
    after: int = 0
    shape: Shape = "linear"

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "another reward"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if not is_number(value) or not math.isfinite(value):
                raise ValueError(f"schedule: {name} is a finite number, got {value!r}.")
        for name, least in (("tokens", 1), ("after", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"schedule: {name} is a whole number of at least {least}, got {value!r}."
                )
        if self.shape not in get_args(Shape):
            raise ValueError(
                f"schedule: shape is one of {', '.join(get_args(Shape))}, got {self.shape!r}."
            )

    def factor(self, written: int) -> float:
        """The factor after so many tokens."""
        way = min(max((written - self.after) / self.tokens, 0.0), 1.0)
        if self.shape == "cosine":
            way = (1.0 - math.cos(math.pi * way)) / 2.0
        return self.start + (self.end - self.start) * way

    def shaped(self, timing: Timing, every: Every) -> WeightedSum:
        """The reward with its weight on schedule."""
        inner = make(self.reward, timing, every)
        inner.curriculum = _Clock(self, list(inner.rewards))
        return inner


class _Clock:
    """Counts the tokens of a schedule."""

    def __init__(self, schedule: Schedule, names: list[str]) -> None:
        self._schedule = schedule
        self._names = names
        self._written = 0

    def terms(self) -> Mapping[str, Terms]:
        return dict.fromkeys(self._names, Terms(self._schedule.factor(self._written)))

    def observe(self, num_tokens: int, finished: Mapping[str, NDArray[np.float64]]) -> None:
        self._written += num_tokens

    def state_dict(self) -> dict[str, Any]:
        return {"written": self._written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._written = int(state["written"])
