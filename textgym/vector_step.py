"""A step of many rows in two halves: what is written, and what is paid and told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.dynamics import Observation, Rows
from textgym.process import TextProcess
from textgym.rewards.deferred import Owed
from textgym.vector_infos import lay_out, take_out, tell


class Moved(NamedTuple):
    """What came of a step of n rows, but for what is owed.

    Attributes:
        observations: Of arrays (n, L).
        terminated: bool (n,).
        truncated: bool (n,).
        ended: Rows whose episode is over, int (k,).
        final_obs: What there was at the end of each, where they begin anew in the same step.
        owed: Rewards float64 (n,), and infos.
    """

    observations: Observation
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    ended: Rows
    final_obs: list[Observation]
    owed: Owed[tuple[NDArray[np.float64], dict[str, Any]]]


class Begun(NamedTuple):
    """Rows whose episodes began.

    Attributes:
        rows: Which.
        second: The second half of that.
        info: What is told of them.
    """

    rows: Rows
    second: Callable[[], None]
    info: dict[str, Any]

    def settle(self, infos: dict[str, Any], num_envs: int) -> None:
        """Do the second half, and tell of it in the infos of `num_envs` rows."""
        self.second()
        tell(infos, self.rows, self.info, num_envs)


@dataclass(slots=True)
class Step:
    """A step of n rows between its two halves.

    Attributes:
        rows: Those that wrote a token.
        paid: What they are paid.
        terminated: bool (n,).
        truncated: bool (n,).
        before: Those that began anew before, if any.
        ended: Those whose episode is over with it.
        final_info: What is told of them.
        final_obs: What they ended with, if they began anew.
        after: That they did.
    """

    rows: Rows
    paid: Owed[NDArray[np.float64]]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    before: Begun | None = None
    ended: Rows = field(default_factory=lambda: np.zeros(0, np.intp))
    final_info: Callable[[], dict[str, Any]] | None = None
    final_obs: list[Observation] = field(default_factory=list)
    after: Begun | None = None

    def settle(self, process: TextProcess) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """The second half: the rewards of all rows, float64 (n,), and what is told of them."""
        n, rows, ended, final_info = process.num_rows, self.rows, self.ended, self.final_info
        infos: dict[str, Any] = {}
        if self.before is not None:
            self.before.settle(infos, n)
        rewards = self.paid.settle()
        if len(rows) < n:
            paid, rewards = rewards, np.zeros(n)
            rewards[rows] = paid
        elif final_info is None:
            return rewards, lay_out(process.step_info(), np.ones(n, np.bool_))
        if not len(rows):
            return rewards, infos
        step_info = process.step_info()
        if final_info is None or self.after is None:
            tell(infos, rows, step_info, n)
            if final_info is not None:
                tell(infos, ended, final_info(), n)
            return rewards, infos
        over = self.terminated[rows] | self.truncated[rows]
        if not over.all():
            tell(infos, rows[~over], take_out(step_info, ~over), n)
        final = {**final_info(), **take_out(step_info, over)}
        tell(infos, ended, {"final_obs": self.final_obs, "final_info": final}, n)
        self.after.settle(infos, n)
        return rewards, infos
