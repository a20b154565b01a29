"""When a rollout has enough: after some steps, or after some whole episodes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Ending(Protocol):
    """Says when a rollout is over, and which rows have nothing more to write before."""

    @property
    def over(self) -> bool:
        """Whether there is enough."""
        ...

    def take(self, dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take note of a step.

        Args:
            dones: Rows whose episodes ended with it, bool (n,).

        Returns:
            Rows to leave out from now on, bool (n,).
        """
        ...


class AfterSteps:
    """As many steps in every row; episodes that are not finished go on in the next rollout.

    Args:
        n_steps: How many.
    """

    def __init__(self, n_steps: int) -> None:
        self._left = n_steps

    @property
    def over(self) -> bool:
        """Whether there is enough."""
        return self._left == 0

    def take(self, dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Ending`."""
        self._left -= 1
        return np.zeros_like(dones)


class AfterEpisodes:
    """As many whole episodes, those that begin first; rows with none of them are left out.

    Args:
        n_episodes: How many.
        num_envs: Number of rows, each of which has begun one; of more rows than episodes those
            behind are not wanted.
    """

    def __init__(self, n_episodes: int, num_envs: int) -> None:
        self.unwanted = np.arange(num_envs) >= n_episodes
        self._to_begin = max(n_episodes - num_envs, 0)
        self._to_end = n_episodes

    @property
    def over(self) -> bool:
        """Whether there is enough."""
        return self._to_end == 0

    def take(self, dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Ending`."""
        ended = dones.nonzero()[0]  # which begin their next ones in this order
        self._to_end -= len(ended)
        enough = np.zeros_like(dones)
        enough[ended[self._to_begin :]] = True
        self._to_begin = max(self._to_begin - len(ended), 0)
        return enough
