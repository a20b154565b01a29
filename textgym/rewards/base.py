"""The two things that a reward can be: a score of a text, or a stream of rewards."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions, Sample
from textgym.dynamics import Rows
from textgym.rewards.deferred import Snapshot


@runtime_checkable
class Reward(Protocol):
    """Pays every token at once, for a batch of rows of which each is at its own place.

    For what can be updated in O(1) a token. State belongs in arrays with a slot a row, of length
    `completions.num_rows`, and is reset by `start`. Each environment keeps a copy of its own.

    A class attribute `success_threshold: float` makes episodes whose rewards add up to at least
    that much count as successes (`info["is_success"]`). One that learns from the course of
    training has `state_dict` and `load_state_dict` (the `Stateful` protocol).
    """

    def start(self, rows: Rows, completions: Completions) -> None:
        """New episodes begin in `rows`, int (k,), k >= 1; their prompts are in `completions`.

        The episodes before them may have been given up before their end.
        """

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.floating[Any]]:
        """The rewards of the tokens just written.

        Args:
            rows: Rows that took a token, int (k,), k >= 1, ascending.
            tokens: The token of each, int64 (k,); already part of `completions`.
            completions: The whole batch; `completions.ended[rows]` says whose episode is over.

        Returns:
            Rewards, float32 (k,), finite.
        """


@runtime_checkable
class Score(Protocol):
    """Scores texts, finished or not; `textgym.rewards.shaping` makes rewards of it.

    The score of a sample depends on that sample alone, not on the others of its batch or on what
    was scored before. Environments share the object.

    A class attribute `text_only = True` says that the token ids do not matter, so that a token
    which leaves the text as it was (an end-of-text token, half a character) costs no scoring; the
    token ids of a sample may then go beyond its text.
    `success_threshold: float` makes final scores of at least that much count as successes.
    """

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """The score of each sample, k finite numbers."""


@runtime_checkable
class RemoteScore(Score, Protocol):
    """A score that is made elsewhere, and takes long: asked for now, needed later.

    Whoever can wait asks for many before it takes the first; `score(samples)` is
    `submit(samples).result()`.
    """

    def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
        """Have samples scored; what `score` would return or raise is the result of the future."""


@runtime_checkable
class Stateful(Protocol):
    """A reward that changes with training; its state is saved with a run's checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """The state, JSON-able; empty if there is none."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""


class RewardError(RuntimeError):
    """A reward raised, or gave something that is not a finite number for every row.

    Args:
        name: The reward's name.
        problem: What went wrong.
        sample: Where: the sample being scored, or the first of the batch.
    """

    def __init__(self, name: str, problem: str, sample: Sample) -> None:
        super().__init__(
            f"reward {name!r} {problem}\n  prompt: {sample.prompt!r}\n  text:   {sample.text!r}"
        )
        self.name = name
        self.problem = problem
        self.sample = sample

    def __reduce__(self) -> tuple[type[RewardError], tuple[str, str, Sample]]:
        """Rebuild from the three arguments: worker processes send errors by pickle."""
        return type(self), (self.name, self.problem, self.sample)


def checked(
    name: str, paid: Any, rows: Rows, completions: Completions | Snapshot
) -> NDArray[np.float32]:
    """What a reward paid, as finite float32 (k,).

    Raises:
        RewardError: If it is no array of that shape, or holds something else than finite numbers.
    """
    rewards = np.asarray(paid)
    if rewards.shape != rows.shape or rewards.dtype.kind not in "biuf":
        problem = f"returned {described(paid)}; expected a float32 array of shape {rows.shape}"
        raise RewardError(name, problem, completions.sample(int(rows[0])))
    if rewards.dtype != np.float32:
        with np.errstate(over="ignore"):  # an infinity, for which there is an error below
            rewards = rewards.astype(np.float32)
    # A sum of squares is finite unless a term is not, or it overflows: one cheap look, then two.
    if not math.isfinite(rewards.dot(rewards)) and not np.isfinite(rewards).all():
        k = int(np.argmin(np.isfinite(rewards)))
        problem = f"paid {rewards[k]}; expected a finite number"
        raise RewardError(name, problem, completions.sample(int(rows[k])))
    return rewards


def described(value: Any) -> str:
    """What a reward returned, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return reprlib.repr(value)
