"""Several rewards as one: a weighted sum that remembers who paid what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.base import Reward, RewardError, checked
from textgym.rewards.curriculum import Curriculum, Terms
from textgym.rewards.deferred import DeferrableReward, Owed, Snapshot
from textgym.rewards.shaping import find_state

Texts: TypeAlias = "Completions | Snapshot"
"""Where the texts are that an error is about."""


class WeightedSum(DeferrableReward):
    """The sum of named rewards, each times its weight; itself a reward.

    It is also the gate that everything passes on its way to the environment: what raises, or is
    not a finite number for every row, ends here in a `RewardError`.

    Sums may stand in sums. The parts of an inner one are then called `outer/inner`.

    Args:
        rewards: The rewards by name.
        weights: The weight of each, by the same names.
        success_thresholds: The score from which on an episode counts as a success, for the
            rewards that say so.
        curriculum: Changes the weights as training goes on; None for weights that stay.

    Attributes:
        components: What each reward paid in the last step, weight included, float64 (k,).

    All that can be read here is about the steps that are settled.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float],
        success_thresholds: Mapping[str, float] | None = None,
        curriculum: Curriculum | None = None,
    ) -> None:
        self.rewards = dict(rewards)
        self.weights = {name: float(weights[name]) for name in self.rewards}
        self.success_thresholds = dict(success_thresholds or {})
        self.curriculum = curriculum
        self.is_remote = any(
            isinstance(reward, DeferrableReward) and reward.is_remote
            for reward in self.rewards.values()
        )
        self.components: dict[str, NDArray[np.float64]] = {}
        self._scores: dict[str, NDArray[np.float64]] = {}
        self._terms: dict[str, list[Terms]] = {}

    @property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """What each reward paid in the current episodes so far, without weights, float64 (n,)."""
        scores: dict[str, NDArray[np.float64]] = {}
        for name, reward in self.rewards.items():
            if isinstance(reward, WeightedSum):
                scores |= {f"{name}/{part}": paid for part, paid in reward.scores.items()}
            elif name in self._scores:
                scores[name] = self._scores[name]
        return scores

    @property
    def current_weights(self) -> dict[str, float]:
        """The weight of each reward in the episodes that begin now."""
        terms = self.curriculum.terms() if self.curriculum else {}
        weights: dict[str, float] = {}
        for name, reward in self.rewards.items():
            weight = self.weights[name] * (terms[name].factor if name in terms else 1.0)
            if isinstance(reward, WeightedSum):
                inner = reward.current_weights.items()
                weights |= {f"{name}/{part}": weight * share for part, share in inner}
            else:
                weights[name] = weight
        return weights

    def terms_of(self, row: int) -> dict[str, Any]:
        """What a curriculum said when the episode of a row began, JSON-able; mostly empty."""
        said: dict[str, Any] = {}
        if self.curriculum:
            said[""] = {name: list(terms[row]) for name, terms in self._terms.items()}
        for name, reward in self.rewards.items():
            if isinstance(reward, WeightedSum) and (inner := reward.terms_of(row)):
                said[name] = inner
        return said

    def load_terms(self, row: int, said: Mapping[str, Any]) -> None:
        """Hold the episode of a row to the terms with which it began, by `terms_of`."""
        for name, terms in said.get("", {}).items():
            self._terms[name][row] = Terms(*terms)
        for name, reward in self.rewards.items():
            if isinstance(reward, WeightedSum) and name in said:
                reward.load_terms(row, said[name])

    def begin(self, rows: Rows, completions: Completions) -> Callable[[], None]:
        """New episodes begin in `rows`; those of a curriculum on the terms that hold by then.

        Raises:
            RewardError: If a reward raised.
        """
        halves: list[Callable[[], None]] = []
        for name, reward in self.rewards.items():
            if len(self._scores.get(name, ())) != completions.num_rows:
                self._scores[name] = np.zeros(completions.num_rows)
                self._terms[name] = [Terms()] * completions.num_rows
            try:
                if isinstance(reward, DeferrableReward):
                    halves.append(reward.begin(rows, completions))
                else:
                    reward.start(rows, completions)
            except Exception as error:
                raise _reward_error(name, error, rows, completions) from error
        return partial(self._begin, rows, halves)

    def _begin(self, rows: Rows, halves: list[Callable[[], None]]) -> None:
        for half in halves:
            half()
        for scores in self._scores.values():
            scores[rows] = 0.0
        terms = self.curriculum.terms() if self.curriculum else {}
        for name in terms:
            for row in rows.tolist():
                self._terms[name][row] = terms[name]

    def submit(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> Owed[NDArray[np.float64]]:
        """The weighted sum of the rewards of the tokens just written, float64 (k,).

        Raises:
            RewardError: If a reward raised, or returned another shape, a NaN or an infinity.
        """
        paid, ended = self._ask(rows, tokens, completions, defer=True)
        if not self.is_remote:
            return Owed(partial(self._settle, rows, paid, ended, completions))
        futures = [f for owed in paid.values() if isinstance(owed, Owed) for f in owed.futures]
        texts = Snapshot(rows, completions)
        return Owed(partial(self._settle, rows, paid, ended, texts), futures)

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float64]:
        """As `submit`, settled at once."""
        paid, ended = self._ask(rows, tokens, completions, defer=False)
        return self._settle(rows, paid, ended, completions)

    def _ask(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions, *, defer: bool
    ) -> tuple[dict[str, Any], Rows | None]:
        """What each reward pays, or owes, and what ended if a curriculum wants to know."""
        paid: dict[str, Any] = {}
        for name, reward in self.rewards.items():
            try:
                if defer and isinstance(reward, DeferrableReward):
                    paid[name] = reward.submit(rows, tokens, completions)
                else:
                    stepped = reward.step(rows, tokens, completions)
                    paid[name] = checked(name, stepped, rows, completions)
            except Exception as error:
                raise _reward_error(name, error, rows, completions) from error
        return paid, rows[completions.ended[rows]] if self.curriculum else None

    def _settle(
        self, rows: Rows, paid: dict[str, Any], ended: Rows | None, texts: Texts
    ) -> NDArray[np.float64]:
        total: NDArray[np.float64] | None = None
        self.components = {}
        for name, reward in self.rewards.items():
            amounts = paid[name]
            if isinstance(amounts, Owed):
                try:
                    amounts = checked(name, amounts.settle(), rows, texts)
                except Exception as error:
                    raise _reward_error(name, error, rows, texts) from error
            gained = amounts.astype(np.float64)
            scores = self._scores[name]
            if len(rows) == len(scores):  # all rows, which needs no index
                scores += gained
            else:
                scores[rows] += gained
            weight: float | NDArray[np.float64] = self.weights[name]
            if self.curriculum:
                terms = [self._terms[name][row] for row in rows.tolist()]
                bars = np.array([each.bar for each in terms])
                written = scores[rows]
                gained = np.minimum(written, bars) - np.minimum(written - gained, bars)
                weight = weight * np.array([each.factor for each in terms])
                gained *= weight
            elif weight != 1.0:
                gained *= weight
            if isinstance(reward, WeightedSum):
                for part, inner in reward.components.items():
                    self.components[f"{name}/{part}"] = inner * weight
            else:
                self.components[name] = gained
            total = gained.copy() if total is None else total + gained
        if self.curriculum and ended is not None:
            finished = {name: self._worth(name, ended) for name in self.rewards}
            self.curriculum.observe(len(rows), finished)
        return np.zeros(len(rows)) if total is None else total

    def total(self, rows: Rows) -> NDArray[np.float64]:
        """What the episodes in `rows` are worth at the weights that were asked for, float64 (k,).

        The sum of their rewards, unless a curriculum paid them otherwise.
        """
        total = np.zeros(len(rows))
        for name in self.rewards:
            total += self.weights[name] * self._worth(name, rows)
        return total

    def _worth(self, name: str, rows: Rows) -> NDArray[np.float64]:
        """The score of one reward, without its weight and whatever a curriculum made of it."""
        reward = self.rewards[name]
        return reward.total(rows) if isinstance(reward, WeightedSum) else self._scores[name][rows]

    def success(self, rows: Rows) -> NDArray[np.bool_] | None:
        """Which finished episodes reached the threshold of every reward that has one, bool (k,).

        None if no reward says what success is.
        """
        verdicts = []
        for name, reward in self.rewards.items():
            if isinstance(reward, WeightedSum):
                verdicts.append(reward.success(rows))
            elif name in self.success_thresholds:
                threshold = self.success_thresholds[name]
                # The rewards of an episode add up to its score only to float32 rounding.
                rounding = 1e-6 * max(1.0, abs(threshold))
                verdicts.append(self._scores[name][rows] >= threshold - rounding)
        said = [verdict for verdict in verdicts if verdict is not None]
        return np.logical_and.reduce(said) if said else None

    def state_dict(self) -> dict[str, Any]:
        """What has been learned of the course of training, JSON-able; empty if there is none."""
        state: dict[str, Any] = {}
        for name, reward in self.rewards.items():
            owner = find_state(reward)
            inner = owner.state_dict() if owner is not None else {}
            if inner:
                state.setdefault("rewards", {})[name] = inner
        if self.curriculum:
            state["curriculum"] = self.curriculum.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            ValueError: If it is the state of other rewards.
        """
        inner: Mapping[str, Any] = state.get("rewards", {})
        owners = {
            name: owner
            for name in inner
            if (owner := find_state(self.rewards.get(name))) is not None
        }
        if len(owners) < len(inner) or ("curriculum" in state and self.curriculum is None):
            raise ValueError(
                f"the state is of other rewards: it holds {sorted(inner) or sorted(state)}, and "
                f"these are {sorted(self.rewards)}. Give the reward that the state was saved with."
            )
        for name, owner in owners.items():
            owner.load_state_dict(inner[name])
        if self.curriculum and "curriculum" in state:
            self.curriculum.load_state_dict(state["curriculum"])


def _reward_error(name: str, error: Exception, rows: Rows, texts: Texts) -> RewardError:
    if isinstance(error, RewardError):  # knows the very sample, but not its name in the sum
        return RewardError(name, error.problem, error.sample)
    batch = f" (in a batch of {len(rows)}; this is the first)" if len(rows) > 1 else ""
    problem = f"raised {type(error).__name__}: {error}{batch}"
    return RewardError(name, problem, texts.sample(int(rows[0])))
