"""A vector environment under watch: each call is checked as it is made, and can be made again."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from textgym.checks import vector_laws as laws
from textgym.checks.differences import difference
from textgym.checks.law import Law
from textgym.checks.vector_returns import Returns

OF_RESET = ("observation", "infos")
OF_STEP = ("observation", "rewards", "terminated", "truncated", "infos")

_REMEMBERED = 3
"""Results that are looked at again, to see that they are still the same: some environments write
to two arrays in turn."""


@dataclass(frozen=True)
class Call:
    """A call of `step`, or without actions of `reset`."""

    actions: Any = None
    seed: int | list[int | None] | None = None
    mask: NDArray[np.bool_] | None = None

    @property
    def is_step(self) -> bool:
        """Whether it is a step."""
        return self.actions is not None

    def on(self, env: VectorEnv[Any, Any, Any]) -> Any:
        """Make the call, and return the result."""
        if self.is_step:
            return env.step(self.actions)
        options = {} if self.mask is None else {"reset_mask": self.mask}
        return env.reset(seed=self.seed, options=options)  # type: ignore[arg-type]


class WatchedVectorEnv:
    """A vector environment whose every result is checked by itself.

    Args:
        env: The environment.
        num_envs: As many rows as were asked for.
        mode: The autoreset mode that was asked for; None for whichever it has.

    Attributes:
        over: Rows whose episode is over, and which begin anew in the next step (NEXT_STEP) or wait
            for a reset (DISABLED), bool (n,).
        ended: Rows that ended in the last call.

    Raises:
        AssertionError: If what it says of itself is not right.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], num_envs: int, mode: AutoresetMode | None
    ) -> None:
        self._returns = Returns(env, num_envs, mode)
        self.env = env
        self.mode = self._returns.mode
        self.num_envs = num_envs
        self.ended = self.over = np.zeros(num_envs, np.bool_)
        self._closed = False
        self._steps = 0
        self._where = "before the first reset"
        self._kept: deque[tuple[str, Any, Any]] = deque(maxlen=_REMEMBERED)
        self._rows: list[Any] = []

    def broken(self, law: Law, where: str, expected: Any, got: Any) -> AssertionError:
        """The error that says so; the values are shown as they are printed."""
        return self._returns.broken(law, where, expected, got)

    def do(self, call: Call) -> Any:
        """Make a call, check its result and return a copy of it."""
        if call.is_step:
            self._steps += 1
            self._where = f"step {self._steps}"
        else:
            self._where = f"reset after step {self._steps}" if self._steps else "first reset"
            self._where += " of some rows" if call.mask is not None else ""
        result = self._result(call)
        if call.is_step:
            self._check_step(result)
        else:
            self._check_reset(call, result)
        self._look_back()
        copied = self._copy(result)
        self._kept.append((self._where, result, copied))
        self._rows = self.split(copied[0])
        return copied

    def compare(self, law: Law, expected: Any, actual: Any, names: Sequence[str] = ()) -> None:
        """Raise if the result of the last call is not what was expected of it."""
        names = names or (OF_STEP if len(expected) == len(OF_STEP) else OF_RESET)
        for name, one, other in zip(names, expected, actual, strict=True):
            found = difference(f"{self._where}: {name}", one, other)
            if found is not None:
                where, *both = found
                raise self.broken(law, where, *map(repr, both))

    def split(self, observation: Any) -> list[Any]:
        """The observation of each row."""
        return list(iterate(self.env.observation_space, observation))

    def mixed(self, actions: Any, others: Any, rows: NDArray[np.bool_]) -> Any:
        """Actions, with those of others in some rows."""
        space, single = self.env.action_space, self.env.single_action_space
        both = zip(iterate(space, actions), iterate(space, others), rows, strict=True)
        chosen = [other if in_rows else action for action, other, in_rows in both]
        return batched(single, chosen)

    def close(self) -> None:
        """Close the environment, if that was not done."""
        if not self._closed:
            self._closed = True
            self._close("first")

    def closes_twice(self) -> None:
        """Close the environment, and once more, as Gymnasium does when it is collected."""
        self.close()
        self._close("second")

    def _close(self, which: str) -> None:
        try:
            self.env.close()
        except Exception as error:  # whatever a close of somebody's may raise
            where = f"{which} close()"
            raise self.broken(laws.CLOSE, where, "nothing raised", repr(error)) from error

    def _result(self, call: Call) -> Any:
        given = copy.deepcopy(call)
        try:
            result = given.on(self.env)
        except Exception as error:  # whatever an environment of somebody's may raise
            raise self.broken(laws.TAKES, self._where, "a result", repr(error)) from error
        for name, before in vars(call).items():
            changed = difference(f"{self._where}: {name}", before, getattr(given, name))
            if changed is not None:
                where, *both = changed
                raise self.broken(laws.ARGUMENTS, where, *map(repr, both))
        return result

    def _copy(self, result: Any) -> Any:
        where = f"{self._where}: infos"
        try:
            copied = copy.deepcopy(result)
            found = difference(where, result[-1], copied[-1])
        except Exception as error:  # whatever the copying and comparing of something may raise
            raise self.broken(laws.PLAIN, where, "an equal copy", repr(error)) from error
        if found is not None:
            where, *both = found
            raise self.broken(laws.PLAIN, where, *map(repr, both))
        return copied

    def _check_step(self, result: Any) -> None:
        self._returns.check_step(self._where, result)
        _, rewards, terminated, truncated, infos = result
        self.ended = terminated | truncated
        if self.mode is AutoresetMode.NEXT_STEP:
            columns = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
            for name, column in columns.items():
                for row in (self.over & (column != 0)).nonzero()[0].tolist():
                    where = f"{self._where}: {name}[{row}]"
                    raise self.broken(laws.NEXT_STEP, where, column.dtype.type(0), column[row])
            self.over = self.ended
        elif self.mode is AutoresetMode.SAME_STEP:
            self._returns.check_ends(self._where, self.ended, infos)
        else:
            self.over = self.over | self.ended

    def _check_reset(self, call: Call, result: Any) -> None:
        self._returns.check_reset(self._where, result)
        self.ended = np.zeros(self.num_envs, np.bool_)
        self.over = self.ended if call.mask is None else self.over & ~call.mask
        if call.mask is not None:
            rows = self.split(result[0])
            for row in (~call.mask).nonzero()[0].tolist():
                where = f"{self._where} {call.mask.nonzero()[0].tolist()}: observation of row {row}"
                found = difference(where, self._rows[row], rows[row])
                if found is not None:
                    where, *both = found
                    raise self.broken(laws.RESET_MASK, where, *map(repr, both))

    def _look_back(self) -> None:
        for before, returned, copied in self._kept:
            names = OF_STEP if len(copied) == len(OF_STEP) else OF_RESET
            for name, then, now in zip(names, copied, returned, strict=True):
                changed = difference(f"{name} of {before}", then, now)
                if changed is not None:
                    where, *both = changed
                    where = f"{where}, after {self._where}"
                    raise self.broken(laws.KEPT, where, *map(repr, both))


def batched(space: gym.Space[Any], rows: Sequence[Any]) -> Any:
    """Elements of a space as one of its batches."""
    out: Any = create_empty_array(space, len(rows))
    return concatenate(space, rows, out)
