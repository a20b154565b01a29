"""The state of an SB3 vector environment, with that of the wrappers around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor

from agents.vec_env import VectorEnvBridge

_RUNNING: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
}
"""What a wrapper adds up, by its attributes."""


def environment_state(env: VecEnv) -> dict[str, Any]:
    """Where an environment is, between two steps.

    Raises:
        TypeError: If it cannot tell.
    """
    *wrappers, base = _layers(env)
    running = [{name: getattr(wrapper, name) for name in _names(wrapper)} for wrapper in wrappers]
    return {"wrappers": running, "base": base.state()}


def load_environment_state(env: VecEnv, state: Mapping[str, Any]) -> tuple[Any, NDArray[np.bool_]]:
    """Let an environment go on from such a state.

    Returns:
        What is observed, and which rows begin anew, bool (n,), since their episodes could not be
        written down.

    Raises:
        TypeError: If it cannot.
        ValueError: If it is the state of another environment.
    """
    *wrappers, base = _layers(env)
    if len(wrappers) != len(state["wrappers"]):
        raise ValueError(
            f"{len(state['wrappers'])} wrappers were around the environment when it was saved, and "
            f"now there are {len(wrappers)}. Make it as it was."
        )
    observations, anew = base.load_state(state["base"])
    for wrapper, running in zip(wrappers, state["wrappers"], strict=True):
        for name in _names(wrapper):
            value = running[name]
            if isinstance(value, np.ndarray):
                value = np.where(anew, value.dtype.type(0), value)
            setattr(wrapper, name, value)
    return observations, anew


def learn_from_state(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Let an environment know what another one has learned, of rewards and of templates.

    Raises:
        ValueError: If that was one with another reward, or other templates.
    """
    env.env_method("load_template_state", state["base"]["templates"], indices=[0])
    env.env_method("load_reward_state", state["base"]["reward"], indices=[0])


def _layers(env: VecEnv) -> Iterator[Any]:
    """The wrappers, from the outermost on, and what they are around."""
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv
    if not isinstance(env, VectorEnvBridge):
        raise TypeError(
            f"{env} cannot say where it is, so that a training in it could not go on. Make the "
            "environment with make_sb3_vec_env('TextGen-v0', n_envs)."
        )
    yield env


def _names(wrapper: VecEnvWrapper) -> tuple[str, ...]:
    if type(wrapper) not in _RUNNING:
        raise TypeError(
            f"{type(wrapper).__name__} cannot say what it has added up, so that a training could "
            f"not go on in it. Only {', '.join(kind.__name__ for kind in _RUNNING)} can."
        )
    return _RUNNING[type(wrapper)]
