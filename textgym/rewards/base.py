"""The two things that a reward can be: a score of a text, or a stream of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions, Sample
from textgym.dynamics import Rows


@runtime_checkable
class Reward(Protocol):
    """Pays every token at once, for a batch of rows of which each is at its own place.

    For what can be updated in O(1) a token. State belongs in arrays with a slot a row, of length
    `completions.num_rows`, and is reset by `start`. Each environment keeps a copy of its own.

    A class attribute `success_threshold: float` makes episodes whose rewards add up to at least
    that much count as successes (`info["is_success"]`).
    """

    def start(self, rows: Rows, completions: Completions) -> None:
        """New episodes begin in `rows`, int (k,); their prompts are in `completions`."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The rewards of the tokens just written.

        Args:
            rows: Rows that took a token, int (k,).
            tokens: The token of each, int64 (k,); already part of `completions`.
            completions: The whole batch; `completions.ended[rows]` says whose episode is over.

        Returns:
            Rewards, float32 (k,), finite.
        """


@runtime_checkable
class Score(Protocol):
    """Scores texts, finished or not; `textgym.rewards.shaping` makes rewards of it.

    A class attribute `text_only = True` says that the token ids do not matter, so that a token
    which leaves the text as it was (an end-of-text token, half a character) costs no scoring.
    `success_threshold: float` makes final scores of at least that much count as successes.
    """

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """The score of each sample, k finite numbers."""


class RewardError(RuntimeError):
    """A reward raised, or gave something that is not a finite number for every row.

    Args:
        name: The reward's name.
        problem: What went wrong.
        sample: Where: the sample being scored, or the first of the batch.
    """

    def __init__(self, name: str, problem: str, sample: Sample) -> None:
        super().__init__(
            f"reward {name!r} {problem}\n"
            f"  prompt: {sample.prompt!r}\n"
            f"  text:   {sample.text!r}"
        )
        self.name = name
        self.problem = problem
        self.sample = sample

    def __reduce__(self) -> tuple[type[RewardError], tuple[str, str, Sample]]:
        """Rebuild from the three arguments: worker processes send errors by pickle."""
        return type(self), (self.name, self.problem, self.sample)
