"""Gymnasium vector environments for Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

import textgym

class VectorEnvBridge(VecEnv):
    """Any Gymnasium `VectorEnv` with same-step autoreset as an SB3 `VecEnv`.

    Infos are filled where an episode ends, and are empty dicts elsewhere: the final info with
    `terminal_observation` and `TimeLimit.truncated`, as SB3's algorithms read them. SB3 wants
    `VecMonitor` around it for episode statistics; `make_sb3_vec_env` adds that.

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
        self._actions: NDArray[Any] = np.zeros(0)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Begin an episode in every row, with the seeds and options set beforehand."""
        reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for rows, options in self._rows_by_options():
            seeds = self._seeds
            arguments = dict(options)
            if len(rows) < self.num_envs:
                arguments["reset_mask"] = np.isin(np.arange(self.num_envs), rows)
                seeds = [seed if row in rows else None for row, seed in enumerate(seeds)]
            seed = None if all(seed is None for seed in seeds) else seeds
            observations, infos = self.env.reset(seed=seed, options=arguments or None)
            for row in rows:
                reset_infos[row] = _row_info(infos, row)
        self.reset_infos = reset_infos
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next `step_wait`, one a row."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every row; rewards float32 (n,), dones bool (n,), infos a list of n dicts."""
        observations, rewards, terminated, truncated, vector_infos = self.env.step(self._actions)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            for row in np.flatnonzero(dones).tolist():
                info = _row_info(vector_infos["final_info"], row)
                info["terminal_observation"] = vector_infos["final_obs"][row]
                info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
                infos[row] = info
                self.reset_infos[row] = _row_info(vector_infos, row)
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, one value a row: of the rows if the environment has such, or its own."""
        rows = list(self._get_indices(indices))
        if hasattr(self.env, "get_attr"):
            values = self.env.get_attr(attr_name)
            return [values[row] for row in rows]
        value = getattr(self.env, attr_name)
        return [value] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of every row.

        Raises:
            ValueError: If only some rows are meant: a native vector environment is one object.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(
                f"set_attr({attr_name!r}) for rows {indices!r} only: the rows of a Gymnasium "
                "vector environment share their attributes; leave indices=None to set all."
            )
        if hasattr(self.env, "set_attr"):
            self.env.set_attr(attr_name, value)
        else:
            setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method, one result a row.

        A native vector environment is called once; a result with an entry a row is dealt out to
        the rows, any other is given to each of them.
        """
        rows = list(self._get_indices(indices))
        call = getattr(self.env, "call", None)
        if call is not None:
            result = call(method_name, *method_args, **method_kwargs)
        else:
            result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        if isinstance(result, (tuple, list, np.ndarray)) and len(result) == self.num_envs:
            return [result[row] for row in rows]
        return [result] * len(rows)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each row is wrapped; the rows of a native vector environment never are."""
        rows = list(self._get_indices(indices))
        envs = getattr(self.env, "envs", None)
        if envs is None:
            return [False] * len(rows)
        from stable_baselines3.common.env_util import is_wrapped

        return [is_wrapped(envs[row], wrapper_class) for row in rows]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The picture of each row, if made with render_mode="rgb_array"."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return list(self.env.render() or ())

    def _rows_by_options(self) -> Iterable[tuple[list[int], Mapping[str, Any]]]:
        """Rows grouped by what they are to be reset with."""
        groups: list[tuple[list[int], Mapping[str, Any]]] = []
        for row, options in enumerate(self._options):
            for rows, shared in groups:
                if options == shared:
                    rows.append(row)
                    break
            else:
                groups.append(([row], options))
        return groups


def make_sb3_vec_env(
    env_id: str = "TextGen-v0",
    n_envs: int = 1,
    *,
    seed: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    monitor_dir: str | None = None,
) -> VecMonitor:
    """Make a vector environment for SB3, as its `make_vec_env` does, in one native batch.

    Args:
        env_id: A registered id with a vector entry point.
        n_envs: Number of rows.
        seed: Row i is seeded with seed + i at the first reset.
        env_kwargs: Arguments of the environment.
        monitor_dir: Write `monitor.csv` there, one line an episode; None writes nothing.

    Returns:
        The environment in a `VecMonitor`, which adds episode returns and lengths to the infos.
    """
    textgym.__version__  # noqa: B018  # importing registered the ids
    env = gym.make_vec(
        env_id,
        num_envs=n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        **(env_kwargs or {}),
    )
    bridge = VectorEnvBridge(env)
    bridge.seed(seed)
    return VecMonitor(bridge, monitor_dir, info_keywords=())


def _row_info(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What vector infos say of one row, as the info of a single environment."""
    info: dict[str, Any] = {}
    for key, value in infos.items():
        mask = infos.get(f"_{key}")
        if mask is None or not mask[row]:
            continue
        if isinstance(value, Mapping):
            info[key] = _row_info(value, row)
        else:
            info[key] = value[row].item() if isinstance(value[row], np.generic) else value[row]
    return info
