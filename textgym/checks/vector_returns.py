"""Is what a vector environment returns of the form that it should have?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from textgym.checks import vector_laws as laws
from textgym.checks.law import Law, broken


class Returns:
    """Checks of what one vector environment says and returns; each raises if a law is broken.

    Args:
        env: The environment.
        num_envs: As many rows as were asked for.
        mode: The autoreset mode that was asked for; None for whichever it has.

    Raises:
        AssertionError: If what it says of itself is not right.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], num_envs: int, mode: AutoresetMode | None
    ) -> None:
        self._env = env
        self._n = num_envs
        self._name = f"{env} with {num_envs} row{'s' * (num_envs > 1)}"
        if not isinstance(env, VectorEnv):
            raise self.broken(laws.KIND, "type", "VectorEnv", type(env).__name__)
        if env.num_envs != num_envs:
            raise self.broken(laws.NUM_ENVS, "num_envs", num_envs, repr(env.num_envs))
        self.mode = self._check_mode(mode)
        self._name += f" in mode {self.mode.name}"
        self._check_spaces()
        self._example = create_empty_array(env.single_observation_space, num_envs)
        self._rewards_dtype: np.dtype[Any] | None = None

    def broken(self, law: Law, where: str, expected: Any, got: Any) -> AssertionError:
        """The error that says so; the values are shown as they are printed."""
        details = {"where": where, "expected": str(expected), "got": str(got)}
        return broken(self._name, law, details)

    def check_reset(self, where: str, result: Any) -> None:
        """Check what `reset` returned."""
        self._check_length(where, result, 2)
        self._check_observation(f"{where}: observation", result[0])
        self._check_infos(f"{where}: infos", result[1])

    def check_step(self, where: str, result: Any) -> None:
        """Check what `step` returned."""
        self._check_length(where, result, 5)
        observation, rewards, terminated, truncated, infos = result
        self._check_observation(f"{where}: observation", observation)
        self._check_rewards(f"{where}: rewards", rewards)
        for name, flags in {"terminated": terminated, "truncated": truncated}.items():
            self._check_column(laws.FLAGS, f"{where}: {name}", flags, "bool", np.bool_)
        self._check_infos(f"{where}: infos", infos)

    def check_ends(self, where: str, over: NDArray[np.bool_], infos: Mapping[str, Any]) -> None:
        """Check what infos say of the rows that ended in this step, with SAME_STEP."""
        for key in ("final_obs", "final_info"):
            mask = infos.get(f"_{key}", np.zeros(self._n, np.bool_))
            if not np.array_equal(mask, over):
                place = f"{where}: infos['_{key}']"
                raise self.broken(laws.SAME_STEP, place, over, infos.get(f"_{key}", "no such key"))
        if not over.any():
            return
        if not isinstance(infos["final_info"], Mapping):
            place, got = f"{where}: infos['final_info']", type(infos["final_info"]).__name__
            raise self.broken(laws.SAME_STEP, place, "a dict of columns", got)
        final, space = infos["final_obs"], self._env.single_observation_space
        if isinstance(final, Mapping):
            got = f"{type(final).__name__} {list(final)}"
            raise self.broken(laws.SAME_STEP, f"{where}: infos['final_obs']", "an entry a row", got)
        # Where rows differ in their bounds, the single space is that of the first.
        checked = over if self._env.observation_space == batch_space(space, self._n) else over[:1]
        for row in checked.nonzero()[0].tolist():
            if final[row] not in space:
                place = f"{where}: infos['final_obs'][{row}]"
                raise self.broken(laws.SAME_STEP, place, f"an element of {space}", repr(final[row]))

    def _check_mode(self, wanted: AutoresetMode | None) -> AutoresetMode:
        mode = self._env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode) or mode is not (wanted or mode):
            expected = wanted or "an AutoresetMode"
            raise self.broken(laws.MODE, "metadata['autoreset_mode']", expected, repr(mode))
        return mode

    def _check_spaces(self) -> None:
        for kind in ("observation", "action"):
            batched, single = f"{kind}_space", f"single_{kind}_space"
            for name in (batched, single):
                space = getattr(self._env, name, None)
                if not isinstance(space, gym.Space):
                    raise self.broken(laws.SPACES, name, "a gymnasium.Space", repr(space))
            expected = batch_space(getattr(self._env, single), self._n)
            space = getattr(self._env, batched)
            # Rows may differ in the bounds of their observations (observation_mode="different").
            alike = kind == "observation" and is_space_dtype_shape_equiv(space, expected)
            if not (space == expected or alike):
                raise self.broken(laws.SPACES, batched, expected, space)

    def _check_length(self, where: str, result: Any, length: int) -> None:
        if not isinstance(result, tuple) or len(result) != length:
            got = f"{type(result).__name__} of {len(result)}" if _sized(result) else repr(result)
            raise self.broken(laws.RESULT, where, f"a tuple of {length}", got)

    def _check_observation(self, where: str, observation: Any) -> None:
        misfit = _misfit(where, self._example, observation)
        if misfit is not None:
            raise self.broken(laws.OBSERVATION, *misfit)
        if observation not in self._env.observation_space:
            expected = f"an element of {self._env.observation_space}"
            raise self.broken(laws.OBSERVATION, where, expected, repr(observation))

    def _check_rewards(self, where: str, rewards: Any) -> None:
        self._check_column(laws.REWARDS, where, rewards, "floats", np.floating)
        if self._rewards_dtype not in (None, rewards.dtype):
            place, got = f"dtype of {where}", rewards.dtype
            raise self.broken(laws.REWARDS, place, f"{self._rewards_dtype}, as before", got)
        self._rewards_dtype = rewards.dtype
        if not np.isfinite(rewards).all():
            raise self.broken(laws.REWARDS, where, "finite numbers", rewards)

    def _check_column(self, law: Law, where: str, column: Any, what: str, kind: type) -> None:
        fits = isinstance(column, np.ndarray) and column.shape == (self._n,)
        if not fits or not np.issubdtype(column.dtype, kind):
            raise self.broken(law, where, f"an array of {what}, shape ({self._n},)", _form(column))

    def _check_infos(self, where: str, infos: Any, outermost: bool = True) -> None:
        if not isinstance(infos, Mapping):
            raise self.broken(laws.INFOS, where, "a dict", type(infos).__name__)
        masks = {key for key in infos if key.startswith("_") and key[1:] in infos}
        for key in infos.keys() - masks:
            place = f"{where}[{key!r}]"
            # Columns of a dict may do without: the mask of the dict is about them, too.
            if outermost and f"_{key}" not in infos:
                raise self.broken(laws.INFOS, where, f"a mask '_{key}'", sorted(infos))
            if isinstance(infos[key], Mapping):
                self._check_infos(place, infos[key], outermost=False)
            elif not _sized(infos[key]) or len(infos[key]) != self._n:
                expected, got = f"{self._n} entries", _form(infos[key])
                raise self.broken(laws.INFOS, place, expected, got)
        for key in masks:
            self._check_column(laws.INFOS, f"{where}[{key!r}]", infos[key], "bool", np.bool_)


def _misfit(where: str, example: Any, value: Any) -> tuple[str, str, str] | None:
    """Where a value has another structure, dtype or shape than the example, and which."""
    if isinstance(example, np.ndarray):
        fits = isinstance(value, np.ndarray) and _form(value) == _form(example)
        return None if fits else (where, _form(example), _form(value))
    if isinstance(example, Mapping):
        if not isinstance(value, Mapping) or value.keys() != example.keys():
            got = f"keys {sorted(value)}" if isinstance(value, Mapping) else _form(value)
            return where, f"a dict with the keys {sorted(example)}", got
        pairs = [(f"{where}[{key!r}]", example[key], value[key]) for key in example]
    else:
        if not isinstance(value, tuple) or len(value) != len(example):
            return where, f"a tuple of {len(example)}", _form(value)
        if not all(isinstance(part, (np.ndarray, Mapping, tuple)) for part in example):
            return None  # an entry a row of a space that has no arrays: `contains` sees to it
        pairs = [(f"{where}[{i}]", example[i], value[i]) for i in range(len(example))]
    return next(filter(None, (_misfit(*pair) for pair in pairs)), None)


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}: {value!r}"


def _sized(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Sequence)) and not isinstance(value, str)
