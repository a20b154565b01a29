"""Rewards in two halves: what is asked for now, and what is known later.

A first half sees the texts as they are and asks. A second half takes the answer, and keeps the
account of what was paid; by then the texts may have gone on, so it looks at none. Second halves
run in the order of their first halves, however late, which is why they come out the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions, Sample
from textgym.dynamics import Rows

T_co = TypeVar("T_co", covariant=True)


@dataclass(slots=True)
class Owed(Generic[T_co]):
    """What was asked for.

    Attributes:
        settle: The second half, to be called once: waits for what is not there yet, and gives it.
        futures: What it waits for.
    """

    settle: Callable[[], T_co]
    futures: Sequence[Future[Any]] = ()

    @property
    def is_due(self) -> bool:
        """Whether there is nothing to wait for."""
        return all(future.done() for future in self.futures)

    def cancel(self) -> None:
        """Say that nobody waits for it any more."""
        for future in self.futures:
            future.cancel()


class DeferrableReward(ABC):
    """A `Reward` that can be asked in two halves.

    Attributes:
        is_remote: Whether the second half may have to wait. Otherwise there is nothing to gain.
    """

    is_remote: bool = False

    @abstractmethod
    def begin(self, rows: Rows, completions: Completions) -> Callable[[], None]:
        """The first half of `start`; returns the second."""

    @abstractmethod
    def submit(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> Owed[NDArray[np.floating[Any]]]:
        """The first half of `step`."""

    def start(self, rows: Rows, completions: Completions) -> None:
        """New episodes begin in `rows`; see `Reward`.

        Raises:
            RewardError: If a reward raised.
        """
        self.begin(rows, completions)()

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.floating[Any]]:
        """The rewards of the tokens just written; see `Reward`.

        Raises:
            RewardError: If a reward raised, or gave something else than finite numbers.
        """
        return self.submit(rows, tokens, completions).settle()


class Snapshot:
    """The texts of some rows as they are now, for the messages of errors that come later."""

    def __init__(self, rows: Rows, completions: Completions) -> None:
        samples = completions.samples(rows)
        self._samples: dict[int, Sample] = dict(zip(rows.tolist(), samples, strict=True))

    def sample(self, row: int) -> Sample:
        """A row as it was."""
        return self._samples[row]
