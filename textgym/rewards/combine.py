"""Several rewards as one: a weighted sum that remembers who paid what."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.base import Reward, RewardError, checked


class WeightedSum:
    """The sum of named rewards, each times its weight; itself a reward.

    It is also the gate that everything passes on its way to the environment: what raises, or is
    not a finite number for every row, ends here in a `RewardError`.

    Args:
        rewards: The rewards by name.
        weights: The weight of each, by the same names.
        success_thresholds: The score from which on an episode counts as a success, for the
            rewards that say so.

    Attributes:
        components: What each reward paid in the last step, weight included, float64 (k,).
        scores: What each reward paid in the current episodes so far, without its weight,
            float64 (n,).
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float],
        success_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.rewards = dict(rewards)
        self.weights = {name: float(weights[name]) for name in self.rewards}
        self.success_thresholds = dict(success_thresholds or {})
        self.components: dict[str, NDArray[np.float64]] = {}
        self.scores: dict[str, NDArray[np.float64]] = {}

    def start(self, rows: Rows, completions: Completions) -> None:
        """New episodes begin in `rows`.

        Raises:
            RewardError: If a reward raised.
        """
        for name, reward in self.rewards.items():
            scores = self.scores.get(name)
            if scores is None or len(scores) != completions.num_rows:
                self.scores[name] = scores = np.zeros(completions.num_rows)
            scores[rows] = 0.0
            try:
                reward.start(rows, completions)
            except Exception as error:
                raise _reward_error(name, error, rows, completions) from error

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float64]:
        """The weighted sum of the rewards of the tokens just written, float64 (k,).

        Raises:
            RewardError: If a reward raised, or returned another shape, a NaN or an infinity.
        """
        total: NDArray[np.float64] | None = None
        for name, reward in self.rewards.items():
            try:
                paid = checked(name, reward.step(rows, tokens, completions), rows, completions)
            except Exception as error:
                raise _reward_error(name, error, rows, completions) from error
            gained = paid.astype(np.float64)
            scores = self.scores[name]
            if len(rows) == len(scores):  # all rows, which needs no index
                scores += gained
            else:
                scores[rows] += gained
            if self.weights[name] != 1.0:
                gained *= self.weights[name]
            self.components[name] = gained
            total = gained.copy() if total is None else total + gained
        return np.zeros(len(rows)) if total is None else total

    def success(self, rows: Rows) -> NDArray[np.bool_] | None:
        """Which finished episodes reached the threshold of every reward that has one, bool (k,).

        None if no reward says what success is.
        """
        if not self.success_thresholds:
            return None
        success = np.ones(len(rows), np.bool_)
        for name, threshold in self.success_thresholds.items():
            # The rewards of an episode add up to its score only to float32 rounding.
            rounding = 1e-6 * max(1.0, abs(threshold))
            success &= self.scores[name][rows] >= threshold - rounding
        return success


def _reward_error(name: str, error: Exception, rows: Rows, completions: Completions) -> RewardError:
    if isinstance(error, RewardError):  # knows the very sample, but not its name in the sum
        return RewardError(name, error.problem, error.sample)
    batch = f" (in a batch of {len(rows)}; this is the first)" if len(rows) > 1 else ""
    problem = f"raised {type(error).__name__}: {error}{batch}"
    return RewardError(name, problem, completions.sample(int(rows[0])))
