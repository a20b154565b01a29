"""Is a vector environment the same as its single environments, step by step?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

Difference: TypeAlias = tuple[str, Any, Any]
"""Where two values differ, what was expected there, and what was found."""

_OF_RESET = ("observation", "infos")
_OF_STEP = ("observation", "rewards", "terminated", "truncated", "infos")


def check_vector_env(
    make_vector: Callable[..., VectorEnv[Any, Any, Any]],
    make_single: Callable[[], gym.Env[Any, Any]],
    *,
    num_envs: int = 3,
    num_steps: int = 200,
    seed: int = 0,
    autoreset_modes: Sequence[AutoresetMode] = tuple(AutoresetMode),
) -> None:
    """Check that a vector environment gives what `SyncVectorEnv` of single ones gives.

    Both take the same random actions. Compared are the spaces, and of every reset and step the
    observations, rewards, flags and infos: values, shapes, dtypes, keys and masks. Resets with
    one seed, with a list of seeds, without any and with `reset_mask` are part of it, and so is
    that nothing which was returned changes later.

    Example:
        >>> from functools import partial
        >>> import gymnasium as gym
        >>> import textgym
        >>> arguments = {"task": "target_token", "reward": "target_token"}
        >>> check_vector_env(
        ...     partial(gym.make_vec, "TextGen-v0", **arguments),
        ...     partial(gym.make, "TextGen-v0", **arguments),
        ... )

    Args:
        make_vector: Makes the vector environment; called with `num_envs` and `autoreset_mode`.
        make_single: Makes one single environment.
        num_envs: Number of rows, 2 or more.
        num_steps: Steps in each mode; take enough for several episodes.
        seed: Of the environments and of the actions.
        autoreset_modes: The modes to check.

    Raises:
        AssertionError: If something differs; the message says what, and at which step.
        ValueError: If `num_envs` is below 2.
    """
    if num_envs < 2:
        raise ValueError(f"num_envs is {num_envs}; take 2 or more, so that rows can differ.")
    for mode in autoreset_modes:
        vector = make_vector(num_envs=num_envs, autoreset_mode=mode)
        reference = SyncVectorEnv([make_single] * num_envs, autoreset_mode=mode)
        try:
            _Pair(vector, reference, mode).run(num_steps, seed)
        finally:
            vector.close()
            reference.close()


class _Pair:
    """A vector environment and its reference, led through the same resets and steps."""

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any],
        reference: SyncVectorEnv,
        mode: AutoresetMode,
    ) -> None:
        self._vector = vector
        self._reference = reference
        self._mode = mode
        self._returned: Any = None
        self._returned_copy: Any = None

    def run(self, num_steps: int, seed: int) -> None:
        """Take the steps, and on the way every kind of reset."""
        n = self._reference.num_envs
        self._compare_spaces()
        self._reference.action_space.seed(seed)
        rng = np.random.default_rng(seed)
        seeds = [None if row % 2 else seed + 10 * row for row in range(n)]
        self._reset("first reset", seed=seed)
        over = np.zeros(n, np.bool_)
        for step in range(1, num_steps + 1):
            chosen = rng.random(n) < 0.5
            if step == num_steps // 3:
                self._reset(f"reset before step {step}", seed=seeds)
            elif step == num_steps // 2:
                self._reset(f"reset before step {step}")
            elif step % 20 == 0 and chosen.any():
                self._reset(f"reset of some rows before step {step}", mask=chosen | over)
            elif self._mode is AutoresetMode.DISABLED and over.any():
                self._reset(f"reset of rows that are over before step {step}", mask=over)
            actions = self._reference.action_space.sample()
            expected = self._reference.step(actions)
            self._compare(f"step {step}", expected, self._vector.step(actions))
            over = expected[2] | expected[3]

    def _reset(
        self,
        where: str,
        *,
        seed: int | list[int | None] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        # SyncVectorEnv takes the mask out of the dict that it is given: one for each.
        arguments: Any = {"seed": seed, "options": {} if mask is None else {"reset_mask": mask}}
        expected = self._reference.reset(**copy.deepcopy(arguments))
        self._compare(where, expected, self._vector.reset(**copy.deepcopy(arguments)))

    def _compare_spaces(self) -> None:
        for name in (
            "num_envs",
            "single_observation_space",
            "single_action_space",
            "observation_space",
            "action_space",
        ):
            expected, actual = getattr(self._reference, name), getattr(self._vector, name)
            assert actual == expected, self._message(name, expected, actual)
        mode = self._vector.metadata.get("autoreset_mode")
        assert mode is self._mode, self._message("metadata['autoreset_mode']", self._mode, mode)

    def _compare(self, where: str, expected: Sequence[Any], actual: Sequence[Any]) -> None:
        names = _OF_STEP if len(expected) == len(_OF_STEP) else _OF_RESET
        for name, one, other in zip(names, expected, actual, strict=True):
            difference = _difference(f"{where}: {name}", one, other)
            assert difference is None, self._message(*difference)
        changed = _difference("what was returned", self._returned_copy, self._returned)
        assert changed is None, (
            f"{self._mode}, {where}: it changed what was returned before, {changed[0]}, from "
            f"{changed[1]!r} to {changed[2]!r}. Return copies."
        )
        self._returned, self._returned_copy = actual, copy.deepcopy(actual)

    def _message(self, where: str, expected: Any, actual: Any) -> str:
        return (
            f"{self._mode}, {where} is {actual!r} in the vector environment; the single "
            f"environments give {expected!r}."
        )


def _difference(where: str, expected: Any, actual: Any) -> Difference | None:
    """The first place where two values differ, and what stands there; None if they are equal."""
    if type(expected) is not type(actual):
        return f"type of {where}", type(expected).__name__, type(actual).__name__
    if isinstance(expected, np.ndarray):
        return _array_difference(where, expected, actual)
    if isinstance(expected, Mapping):
        if expected.keys() != actual.keys():
            return f"set of keys of {where}", sorted(expected), sorted(actual)
        pairs = [(f"{where}[{key!r}]", expected[key], actual[key]) for key in expected]
        return _first_difference(pairs)
    if isinstance(expected, (tuple, list)):
        if len(expected) != len(actual):
            return f"length of {where}", len(expected), len(actual)
        both = enumerate(zip(expected, actual, strict=True))
        return _first_difference((f"{where}[{i}]", one, other) for i, (one, other) in both)
    return None if expected == actual else (where, expected, actual)


def _array_difference(
    where: str, expected: NDArray[Any], actual: NDArray[Any]
) -> Difference | None:
    if expected.dtype != actual.dtype:
        return f"dtype of {where}", expected.dtype, actual.dtype
    if expected.shape != actual.shape:
        return f"shape of {where}", expected.shape, actual.shape
    places: Iterable[tuple[int, ...]] = np.ndindex(expected.shape)
    if expected.dtype != object:
        # A NaN is equal to nothing, itself included.
        unequal = (expected != actual) & ((expected == expected) | (actual == actual))
        places = map(tuple, np.argwhere(unequal).tolist())
    return _first_difference((f"{where}{list(p)}", expected[p], actual[p]) for p in places)


def _first_difference(pairs: Iterable[tuple[str, Any, Any]]) -> Difference | None:
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)
