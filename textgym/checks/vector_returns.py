"""Is what a vector environment returns of the form that it should have?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
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
        self._name = type(env).__name__
        if not isinstance(env, VectorEnv):
            raise self.broken(laws.KIND, "type", "VectorEnv", type(env).__name__)
        has = getattr(env, "num_envs", None)
        if not isinstance(has, (int, np.integer)) or has != num_envs:
            raise self.broken(laws.NUM_ENVS, "num_envs", num_envs, repr(has))
        self._name = f"{env} with {num_envs} row{'s' * (num_envs > 1)}"
        self.mode = self._check_mode(mode)
        self._name += f" in mode {self.mode.name}"
        self._check_spaces()
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
            place = f"{where}: infos['final_obs'][{row}]"
            misfit = _misfit(place, space, final[row])
            if misfit is not None:
                raise self.broken(laws.SAME_STEP, *misfit)
            with warnings.catch_warnings():
                # A Box of shape () warns of a NumPy scalar, which is an element all the same.
                warnings.simplefilter("ignore")
                inside = final[row] in space
            if not inside:
                raise self.broken(laws.SAME_STEP, place, f"an element of {space}", repr(final[row]))

    def _check_mode(self, wanted: AutoresetMode | None) -> AutoresetMode:
        metadata = self._env.metadata
        if not isinstance(metadata, Mapping):
            raise self.broken(laws.MODE, "metadata", "a dict", repr(metadata))
        mode = metadata.get("autoreset_mode")
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
            if space != expected and not (kind == "observation" and _alike(space, expected)):
                raise self.broken(laws.SPACES, batched, expected, space)

    def _check_length(self, where: str, result: Any, length: int) -> None:
        if not isinstance(result, tuple) or len(result) != length:
            raise self.broken(laws.RESULT, where, f"a tuple of {length}", _form(result))

    def _check_observation(self, where: str, observation: Any) -> None:
        misfit = _misfit(where, self._env.observation_space, observation)
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
        # No masked array: what is masked would be neither true nor false.
        fits = type(column) is np.ndarray and column.shape == (self._n,)
        if not fits or not np.issubdtype(column.dtype, kind):
            raise self.broken(law, where, f"an array of {what}, shape ({self._n},)", _form(column))

    def _check_infos(self, where: str, infos: Any, outermost: bool = True) -> None:
        if not isinstance(infos, Mapping):
            raise self.broken(laws.INFOS, where, "a dict", type(infos).__name__)
        for key in infos:
            if not isinstance(key, str):
                raise self.broken(laws.INFO_KEYS, f"key of {where}", "a string", repr(key))
        masks = {key for key in infos if key.startswith("_") and key[1:] in infos}
        for key in infos.keys() - masks:
            place = f"{where}[{key!r}]"
            # Columns of a dict may do without: the mask of the dict is about them, too.
            if outermost and f"_{key}" not in infos:
                raise self.broken(laws.INFOS, where, f"a mask '_{key}'", sorted(infos))
            if isinstance(infos[key], Mapping):
                self._check_infos(place, infos[key], outermost=False)
            elif not _has_entries(infos[key], self._n):
                expected, got = f"an array of {self._n} entries", _form(infos[key])
                raise self.broken(laws.INFOS, place, expected, got)
        for key in masks:
            self._check_column(laws.INFOS, f"{where}[{key!r}]", infos[key], "bool", np.bool_)


def _alike(space: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Whether two spaces have the same structure, dtypes and shapes, if not the same bounds."""
    try:
        return bool(is_space_dtype_shape_equiv(space, other))
    except NotImplementedError:  # Gymnasium knows this of its own spaces only
        return False


def _misfit(where: str, space: gym.Space[Any], value: Any) -> tuple[str, str, str] | None:
    """Where a value has another structure, dtype or shape than a space, and which.

    `contains` of the space would let some pass, or convert them with a warning.
    """
    parts: Mapping[Any, gym.Space[Any]]
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        fits = isinstance(value, (np.ndarray, np.generic)) and value.shape == space.shape
        expected = f"an array of {space.dtype}, shape {space.shape}"
        return None if fits and value.dtype == space.dtype else (where, expected, _form(value))
    if isinstance(space, spaces.Dict):
        parts = space.spaces
        if not isinstance(value, Mapping) or value.keys() != parts.keys():
            got = f"keys {list(value)}" if isinstance(value, Mapping) else _form(value)
            return where, f"a dict with the keys {list(parts)}", got
    elif isinstance(space, spaces.Tuple):
        parts = dict(enumerate(space.spaces))
        if not isinstance(value, tuple) or len(value) != len(parts):
            return where, f"a tuple of {len(parts)}", _form(value)
    else:
        return None
    misfits = (_misfit(f"{where}[{key!r}]", part, value[key]) for key, part in parts.items())
    return next(filter(None, misfits), None)


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        kind = "an array" if type(value) is np.ndarray else f"a {type(value).__name__}"
        return f"{kind} of {value.dtype}, shape {value.shape}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}: {value!r}"


def _has_entries(value: Any, n: int) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == n
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == n
