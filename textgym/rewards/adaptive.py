"""Weights and bars that follow what the model has reached."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.arguments import is_number
from textgym.registry import did_you_mean
from textgym.rewards.combine import WeightedSum
from textgym.rewards.curriculum import Terms
from textgym.rewards.make import RewardSpec, make
from textgym.rewards.shaping import Every, Timing


@dataclass(frozen=True)
class Adaptive:
    r"""Several rewards whose weights follow progress: what is reached yields to what is not.

    A reward is satisfied while its mean score over the last `window` episodes is at its goal or
    above. It then keeps only the share `floor` of its weight, and what it gives up goes to the
    rewards that are not satisfied, in proportion to their weights, so that the absolute weights
    add up to the same. If all are satisfied, each has its own weight again.

    A goal may also be a bar that rises: `{"start": 0.2, "step": 0.1, "stop": 0.8}`. The score then
    counts up to the bar only, and when the mean reaches it the bar rises by a step, until it
    stands at `stop`, which is the goal.

    The range is that of the rewards. Logs and evaluations show their scores as they are, and as
    the score of an episode their sum at the weights that were given. What has been reached is
    saved with a training run's checkpoint.

    Args:
        rewards: The rewards, as any spec that `make` takes: `{"sentiment": 1.0, "grammar": 0.5}`.
        goals: By the rewards' names a score, or a bar. A reward without one is never satisfied.
        window: Over how many episodes the mean is taken; before as many have ended, nothing
            changes.
        floor: What a satisfied reward keeps of its weight, from 0 to 1.

    Raises:
        ValueError: If a goal is for no reward or for one of which less is better, or a number is
            refused.
    """

    rewards: RewardSpec
    goals: Mapping[str, Any]
    window: int = 256
    floor: float = 0.1

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "other rewards"

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or isinstance(self.window, bool) or self.window < 1:
            raise ValueError(
                f"adaptive: window is a whole number of episodes, at least 1, got {self.window!r}."
            )
        if not is_number(self.floor) or not 0 <= self.floor <= 1:
            raise ValueError(f"adaptive: floor is a share from 0 to 1, got {self.floor!r}.")
        if not isinstance(self.goals, Mapping) or not self.goals:
            raise ValueError(
                f"adaptive: goals are scores by the rewards' names, such as {{'sentiment': 0.6}}, "
                f"got {self.goals!r}."
            )

    def shaped(self, timing: Timing, every: Every) -> WeightedSum:
        """The rewards with weights that follow their progress."""
        inner = make(self.rewards, timing, every)
        for name, goal in self.goals.items():
            self._check_goal(name, goal, inner)
        goals = {name: _Goal.parse(name, goal) for name, goal in self.goals.items()}
        inner.curriculum = _Progress(goals, dict(inner.weights), self.window, self.floor)
        return inner

    def _check_goal(self, name: str, goal: Any, inner: WeightedSum) -> None:
        if name not in inner.rewards:
            raise ValueError(
                f"adaptive: a goal is set for {name!r}, which is none of its rewards; "
                f"{did_you_mean(name, inner.rewards)}."
            )
        if inner.weights[name] <= 0:
            raise ValueError(
                f"adaptive: {name!r} has a goal and the weight {inner.weights[name]:g}, so that "
                "less of it is better. Give a reward of which more is better, such as length with "
                "wanted='short', and a weight above 0."
            )
        if isinstance(inner.rewards[name], WeightedSum) and isinstance(goal, Mapping):
            raise ValueError(
                f"adaptive: {name!r} is made of other rewards and cannot have a bar; give it a "
                "score as its goal, or bars to its parts."
            )


@dataclass
class _Goal:
    """What a mean score should reach, and the bar on the way there."""

    stop: float
    step: float = 0.0
    bar: float = math.inf

    @classmethod
    def parse(cls, name: str, goal: Any) -> _Goal:
        if is_number(goal) and math.isfinite(goal):
            return cls(float(goal))
        keys = ("start", "step", "stop")
        given = isinstance(goal, Mapping) and set(goal) == set(keys)
        if not given or not all(is_number(goal[key]) for key in keys):
            raise ValueError(
                f"adaptive: the goal of {name!r} is a score, or a bar such as {{'start': 0.2, "
                f"'step': 0.1, 'stop': 0.8}}; got {goal!r}."
            )
        start, step, stop = (float(goal[key]) for key in keys)
        if not (start < stop and step > 0 and math.isfinite(stop - start)):
            raise ValueError(
                f"adaptive: the bar of {name!r} rises from start to a higher stop by steps above "
                f"0; got {goal!r}."
            )
        return cls(stop, step, start)

    def raise_bar(self, mean: float) -> None:
        """Raise the bar by a step if it is below the goal and the mean has come to it."""
        if self.bar < self.stop and mean >= self.bar:
            self.bar = min(self.bar + self.step, self.stop)


class _Progress:
    """The last scores of each reward that has a goal, and the terms that follow from them."""

    def __init__(
        self, goals: Mapping[str, _Goal], weights: Mapping[str, float], window: int, floor: float
    ) -> None:
        self._goals = dict(goals)
        self._weights = weights
        self._floor = floor
        self._window = window
        self._scores = {name: deque[float](maxlen=window) for name in goals}
        self._satisfied: set[str] = set()

    def terms(self) -> Mapping[str, Terms]:
        needy = {name: abs(w) for name, w in self._weights.items() if name not in self._satisfied}
        wanted = sum(needy.values())
        freed = sum(abs(self._weights[name]) for name in self._satisfied) * (1.0 - self._floor)
        terms = {}
        for name in self._weights:
            factor = 1.0
            if wanted:
                factor = self._floor if name in self._satisfied else 1.0 + freed / wanted
            goal = self._goals.get(name)
            terms[name] = Terms(factor, math.inf if goal is None else goal.bar)
        return terms

    def observe(self, num_tokens: int, finished: Mapping[str, NDArray[np.float64]]) -> None:
        for name, goal in self._goals.items():
            scores = self._scores[name]
            if not len(finished[name]):
                continue
            scores.extend(finished[name].tolist())
            if len(scores) == self._window:
                mean = float(np.mean(scores))
                goal.raise_bar(mean)
                (self._satisfied.add if mean >= goal.stop else self._satisfied.discard)(name)

    def state_dict(self) -> dict[str, Any]:
        return {
            name: {
                "scores": list(scores),
                "bar": None if math.isinf(goal.bar) else goal.bar,
                "satisfied": name in self._satisfied,
            }
            for (name, goal), scores in zip(self._goals.items(), self._scores.values(), strict=True)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state) != set(self._goals):
            raise ValueError(
                f"adaptive: the state is of goals for {sorted(state)}, and these are for "
                f"{sorted(self._goals)}. Give the goals that the state was saved with."
            )
        self._satisfied = {name for name, of in state.items() if of["satisfied"]}
        for name, of in state.items():
            self._scores[name].clear()
            self._scores[name].extend(of["scores"])
            self._goals[name].bar = math.inf if of["bar"] is None else float(of["bar"])
