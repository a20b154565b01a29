"""Sums over whole episodes of what is known of single tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpisodeSums:
    """Adds up numbers of single steps until their episodes end, over the ends of rollouts.

    Args:
        num_envs: Number of rows, n.
    """

    def __init__(self, num_envs: int) -> None:
        self._running: dict[str, NDArray[np.float64]] = {}
        self._num_envs = num_envs

    def state(self) -> dict[str, Any]:
        """The sums of the episodes that go on, float64 (n,) by name."""
        return {name: running.copy() for name, running in self._running.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from such sums."""
        self._running = {name: running.copy() for name, running in state.items()}

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """Forget what is known of rows, bool (n,), whose episodes were left for new ones."""
        for running in self._running.values():
            running[rows] = 0

    def add(
        self, steps: Mapping[str, NDArray[np.float32]], dones: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.float64]]:
        """Add a rollout.

        Args:
            steps: Numbers of each step, (T, n) by name.
            dones: Whether a step ended its episode, (T, n).

        Returns:
            The sums of the e episodes that ended, (e,) by name, in the order of their ends.
        """
        ended: dict[str, NDArray[np.float64]] = {}
        for name, numbers in steps.items():
            running = self._running.setdefault(name, np.zeros(self._num_envs))
            sums = []
            for number, done in zip(numbers, dones, strict=True):
                running += number
                if done.any():
                    sums.append(running[done])
                    running[done] = 0
            ended[name] = np.concatenate(sums) if sums else np.empty(0)
        return ended
