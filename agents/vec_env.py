"""Gymnasium vector environments for Stable-Baselines3."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

import textgym
from agents.devices import own_gpu
from textgym.vector_env import TextGenVectorEnv
from textgym.vector_step import Moved

gym.register_envs(textgym)


class Ahead(NamedTuple):
    """What is known of a step of n rows before it is paid.

    Attributes:
        observations: What there is after it.
        dones: Whose episodes it ended, bool (n,).
        infos: With `terminal_observation` and `TimeLimit.truncated` of those.
    """

    observations: VecEnvObs
    dones: NDArray[np.bool_]
    infos: list[dict[str, Any]]


class VectorEnvBridge(VecEnv):
    """Any Gymnasium `VectorEnv` with same-step autoreset as an SB3 `VecEnv`.

    Infos are filled where an episode ends, and are empty dicts elsewhere: the final info with
    `terminal_observation` and `TimeLimit.truncated`, as SB3's algorithms read them. SB3 wants
    `VecMonitor` around it for episode statistics; `make_sb3_vec_env` adds that.

    Where rewards are made elsewhere, an environment may run ahead of them: `advance` does a step
    and returns what it led to, and the `step` with the same actions that goes through all wrappers
    later waits for its rewards and has nothing else to do.

    Args:
        env: The vector environment, made with `AutoresetMode.SAME_STEP`: SB3 has no step that
            only resets, so the other modes cannot be translated.

    Raises:
        ValueError: If the environment resets in another way.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is None or AutoresetMode(mode) is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"{env} has autoreset mode {mode}, and SB3 needs SAME_STEP. Make it with "
                "gym.make_vec(..., autoreset_mode=AutoresetMode.SAME_STEP), or for a vector "
                "environment of single ones with vector_kwargs={'autoreset_mode': ...}."
            )
        self.env = env
        # SyncVectorEnv and AsyncVectorEnv hold single environments; others are one object.
        self._base: Any = env.unwrapped
        self.spec = env.spec
        self._begun = False
        self._actions: NDArray[Any] = np.zeros(0)
        self._ahead: deque[tuple[NDArray[Any], Moved]] = deque()
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Begin an episode in every row, with the seeds and options set beforehand.

        Raises:
            ValueError: If there are not as many options as rows.
        """
        self._drop_ahead()
        seed = self._seeds[0]  # VecEnv.seed gives row i seed + i, and so does Gymnasium
        groups = self._rows_by_options()
        if len(groups) > 1 and not self._begun:
            self.env.reset(seed=seed)  # SyncVectorEnv resets only some rows after all of them
        for options, rows in groups:
            arguments = dict(options)
            if len(groups) > 1:
                arguments["reset_mask"] = np.isin(np.arange(self.num_envs), rows)
            observations, infos = self.env.reset(seed=seed, options=arguments or None)
            for row in rows:
                self.reset_infos[row] = _row_info(infos, row)
        self._begun = True
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next `step_wait`, one a row."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every row; rewards float32 (n,), dones bool (n,), infos a list of n dicts.

        Raises:
            RuntimeError: If steps were done ahead, and the first of them with other actions.
        """
        if self._ahead:
            actions, moved = self._ahead[0]
            if not np.array_equal(actions, self._actions):
                raise RuntimeError(
                    f"the environment has run ahead with actions {actions}, and is now stepped "
                    f"with {self._actions}; take the steps as they were done, or reset it."
                )
            self._ahead.popleft()
            observations, terminated = moved.observations, moved.terminated
            truncated = moved.truncated
            rewards, columns = moved.owed.settle()
        else:
            observations, rewards, terminated, truncated, columns = self.env.step(self._actions)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in dones.nonzero()[0].tolist():
            info = _row_info(columns.get("final_info", {}), row)
            info |= _ending(columns["final_obs"][row], terminated[row])
            infos[row] = info
            self.reset_infos[row] = _row_info(columns, row)
        return observations, rewards.astype(np.float32), dones, infos

    @property
    def runs_ahead(self) -> bool:
        """Whether `advance` can be called: it is worth it, and nothing depends on rewards."""
        return isinstance(self.env, TextGenVectorEnv) and self.env.process.runs_ahead

    def advance(self, actions: NDArray[Any]) -> Ahead:
        """Do a step of which `step` gives the whole result later.

        Args:
            actions: One a row.
        """
        moved = self._base.advance(actions)
        self._ahead.append((actions, moved))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row, observation in zip(moved.ended.tolist(), moved.final_obs, strict=True):
            infos[row] = _ending(observation, moved.terminated[row])
        return Ahead(moved.observations, moved.terminated | moved.truncated, infos)

    @property
    def is_due(self) -> bool:
        """Whether the rewards of the first step that was done ahead are there."""
        return bool(self._ahead) and self._ahead[0][1].owed.is_due

    def _drop_ahead(self) -> None:
        """Forget the steps that were done ahead, and what is owed for them."""
        for _, moved in self._ahead:
            moved.owed.cancel()
        self._ahead.clear()

    def state(self) -> dict[str, Any]:
        """Where the environment is between two steps, if it can tell; see `TextGenVectorEnv.state`.

        Raises:
            TypeError: If it cannot.
            RuntimeError: If it has run ahead.
        """
        self._check_tells_state()
        if self._ahead:
            raise RuntimeError(
                f"the environment is {len(self._ahead)} steps ahead of its rewards, since a "
                "rollout was stopped in its middle. Save between two rollouts."
            )
        state: dict[str, Any] = self._base.state()
        return state

    def load_state(self, state: Mapping[str, Any]) -> tuple[VecEnvObs, NDArray[np.bool_]]:
        """Go on where another environment was.

        Returns:
            What is observed, and which rows begin anew; see `TextGenVectorEnv.load_state`.

        Raises:
            TypeError: If it cannot.
            ValueError: If that was another kind of environment.
        """
        self._check_tells_state()
        self._drop_ahead()
        observations, anew = self._base.load_state(state)
        self._begun = True
        self._reset_seeds()  # which are for a beginning
        return observations, anew

    def _check_tells_state(self) -> None:
        if self.env is not self._base or not hasattr(self._base, "load_state"):
            raise TypeError(
                f"{self.env} cannot say where it is, so that a training in it could not go on. "
                "Make the environment with make_sb3_vec_env('TextGen-v0', n_envs)."
            )

    def close(self) -> None:
        """Close the vector environment."""
        self._drop_ahead()
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, one value a row: of the rows if the environment has such, or its own."""
        rows = self._get_indices(indices)
        if hasattr(self._base, "get_attr"):
            self._check_attr(attr_name)
            values = self._base.get_attr(attr_name)
            return [values[row] for row in rows]
        value = self._shared(attr_name)
        return [value for _ in rows]

    def has_attr(self, attr_name: str) -> bool:
        """Whether there is an attribute, of every row or of the environment."""
        if hasattr(self._base, "call"):
            return all(self._base.call("has_wrapper_attr", attr_name))
        return super().has_attr(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the rows, or of the environment if its rows share it.

        Raises:
            ValueError: If only some rows are meant, and they share it.
        """
        rows = list(self._get_indices(indices))
        if hasattr(self._base, "set_attr"):
            some = len(rows) < self.num_envs
            values = self.get_attr(attr_name) if some else [None] * self.num_envs
            for row in rows:
                values[row] = value
            self._base.set_attr(attr_name, values)
        elif len(rows) < self.num_envs:
            raise ValueError(
                f"set_attr({attr_name!r}) for rows {rows} only: the {self.num_envs} rows of "
                f"{self.env} share their attributes; leave indices=None to set all."
            )
        else:
            setattr(self._base, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method, one result a row.

        The method of a native vector environment is called once for all rows; a result with an
        entry a row is dealt out to them, any other is given to each.
        """
        rows = list(self._get_indices(indices))
        envs = getattr(self._base, "envs", None)
        if envs is not None:
            methods = [envs[row].get_wrapper_attr(method_name) for row in rows]
            return [method(*method_args, **method_kwargs) for method in methods]
        if hasattr(self._base, "call"):
            self._check_attr(method_name)
            result = self._base.call(method_name, *method_args, **method_kwargs)
        else:
            result = self._shared(method_name)(*method_args, **method_kwargs)
        if isinstance(result, (tuple, list, np.ndarray)) and len(result) == self.num_envs:
            return [result[row] for row in rows]
        return [result] * len(rows)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each row is wrapped; the rows of a native vector environment never are."""
        rows = self._get_indices(indices)
        envs = getattr(self._base, "envs", None)
        return [envs is not None and is_wrapped(envs[row], wrapper_class) for row in rows]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The picture of each row, uint8 (height, width, 3); None without that render mode."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        pictures: Any = self.env.render()
        return list(pictures)

    def _check_attr(self, name: str) -> None:
        """Raise if rows have no such attribute; those in processes end when they are asked for it.

        Raises:
            AttributeError: If they have not.
        """
        if not self.has_attr(name):
            raise AttributeError(f"the rows of {self.env} have no attribute {name!r}.")

    def _shared(self, name: str) -> Any:
        """An attribute that the rows share, of the outermost wrapper that has it."""
        env = self.env
        while isinstance(env, VectorWrapper) and not hasattr(env, name):
            env = env.env
        return getattr(env, name)

    def _rows_by_options(self) -> list[tuple[Mapping[str, Any], list[int]]]:
        """Rows grouped by the dict of options that they were given."""
        if len(self._options) != self.num_envs:
            raise ValueError(
                f"set_options was given {len(self._options)} dicts for {self.num_envs} rows; "
                "give one dict for all, or a list with one a row."
            )
        groups: dict[int | None, tuple[Mapping[str, Any], list[int]]] = {}
        for row, options in enumerate(self._options):
            _, rows = groups.setdefault(id(options) if options else None, (options, []))
            rows.append(row)
        return list(groups.values())


def make_sb3_vec_env(
    env_id: str = "TextGen-v0",
    n_envs: int = 1,
    *,
    seed: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    monitor_dir: str | Path | None = None,
) -> VecMonitor:
    """Make a vector environment for SB3, as its `make_vec_env` does, but as one native batch.

    Args:
        env_id: A registered id, with the module to import before it if need be (`"module:Id-v0"`).
            An id that has no vector environment with same-step autoreset of its own becomes a
            `SyncVectorEnv` of single ones.
        n_envs: Number of rows.
        seed: Row i is seeded with seed + i at the first reset; None leaves it to chance.
        env_kwargs: Arguments of the environment.
        monitor_dir: Write `monitor.csv` there, one line an episode; None writes nothing.

    Returns:
        The environment in a `VecMonitor`, which adds episode returns and lengths to the infos.
    """
    gpu = own_gpu()
    if gpu is not None:
        torch.cuda.set_device(gpu)  # before a reward that is a network takes the first
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    options: dict[str, Any] = (
        mode
        if _resets_in_same_step(gym.spec(name))
        else {"vectorization_mode": "sync", "vector_kwargs": mode}
    )
    env = VectorEnvBridge(gym.make_vec(name, n_envs, **options, **(env_kwargs or {})))
    if seed is not None:
        env.seed(seed)
    return VecMonitor(env, None if monitor_dir is None else str(Path(monitor_dir, "monitor.csv")))


def _resets_in_same_step(spec: EnvSpec) -> bool:
    """Whether an id has a vector environment of its own that can be told how to reset."""
    entry_point = spec.vector_entry_point
    if entry_point is None:
        return False
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return "autoreset_mode" in inspect.signature(creator).parameters


def _ending(observation: Any, terminated: np.bool_) -> dict[str, Any]:
    """What SB3's algorithms read in the info of an episode that is over."""
    return {"terminal_observation": observation, "TimeLimit.truncated": not terminated}


def _row_info(columns: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What vector infos say of one row now, as the info of a single environment."""
    info: dict[str, Any] = {}
    for key, column in columns.items():
        mask = columns.get(f"_{key}")
        if mask is None or not mask[row] or key in ("final_obs", "final_info"):
            continue
        if isinstance(column, dict):
            info[key] = _row_info(column, row)
        else:
            value = column[row]
            info[key] = value.item() if isinstance(value, np.generic) else value
    return info
