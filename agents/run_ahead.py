"""Steps of an environment that are done before the ones before them are paid.

What a language model writes next does not depend on what it was paid for the last token. So where
rewards are made elsewhere, and take their time, a rollout writes on while they are made.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from agents.vec_env import Ahead, VectorEnvBridge

_TRANSPARENT = (VecCheckNan, VecMonitor, VecNormalize)
"""Wrappers that let actions, dones and texts through as they are."""


class Stepper(Protocol):
    """Does the steps of an environment, and tells of them later, in order."""

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin a step, with an action a row."""

    def receive(self) -> Ahead:
        """End it: what it led to, but for rewards."""

    @property
    def is_due(self) -> bool:
        """Whether the first step that is not told can be told without waiting."""

    def tell(self) -> VecEnvStepReturn:
        """What the environment, with all its wrappers, returns for that step."""


class AtOnce:
    """Any environment: a step is told as soon as it is done."""

    def __init__(self, env: VecEnv) -> None:
        self._env = env
        self._told: deque[VecEnvStepReturn] = deque()

    def send(self, actions: NDArray[np.int64]) -> None:
        """See `Stepper`."""
        self._env.step_async(actions)

    def receive(self) -> Ahead:
        """See `Stepper`."""
        result = self._env.step_wait()
        observations, _, dones, infos = result
        self._told.append(result)
        return Ahead(observations, dones, infos)

    @property
    def is_due(self) -> bool:
        """See `Stepper`."""
        return bool(self._told)

    def tell(self) -> VecEnvStepReturn:
        """See `Stepper`."""
        return self._told.popleft()


class RunAhead:
    """An environment whose innermost part runs ahead; wrappers see a step when it is paid.

    Args:
        env: With its wrappers.
        bridge: The innermost part.
    """

    def __init__(self, env: VecEnv, bridge: VectorEnvBridge) -> None:
        self._env = env
        self._bridge = bridge
        self._sent: deque[NDArray[np.int64]] = deque()

    def send(self, actions: NDArray[np.int64]) -> None:
        """See `Stepper`."""
        self._sent.append(actions)

    def receive(self) -> Ahead:
        """See `Stepper`."""
        return self._bridge.advance(self._sent[-1])

    @property
    def is_due(self) -> bool:
        """See `Stepper`."""
        return self._bridge.is_due

    def tell(self) -> VecEnvStepReturn:
        """See `Stepper`."""
        return self._env.step(self._sent.popleft())


def stepper(env: VecEnv) -> Stepper:
    """Runs ahead where that can be, and is worth it."""
    inner: Any = env
    while isinstance(inner, VecEnvWrapper) and type(inner) in _TRANSPARENT:
        inner = inner.venv
    if isinstance(inner, VectorEnvBridge) and inner.runs_ahead:
        return RunAhead(env, inner)
    return AtOnce(env)
