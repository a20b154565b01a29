"""The checker of vector environments, on rows that affect one another as an episode ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from textgym.checks import check_vector_env
from textgym.checks import vector_laws as laws

NEXT_STEP, SAME_STEP, _ = AutoresetMode


def none(step: dict[str, np.ndarray], actions: np.ndarray) -> None:
    """No leak."""


def reward(step: dict[str, np.ndarray], actions: np.ndarray) -> None:
    step["rewards"] = step["rewards"] + actions.mean()


def observation(step: dict[str, np.ndarray], actions: np.ndarray) -> None:
    step["seen"][:, 1] = actions.max()


def flag(step: dict[str, np.ndarray], actions: np.ndarray) -> None:
    if actions.sum() % 2:
        step["terminated"], step["truncated"] = step["truncated"], step["terminated"]


def only_with_own_action_two(step: dict[str, np.ndarray], actions: np.ndarray) -> None:
    step["rewards"] = step["rewards"] + (actions == 2) * actions.mean()


class Bandit(VectorEnv[Any, Any, Any]):
    """Pays for the action that is shown; all rows end at the same time, and may leak as they do."""

    def __init__(
        self,
        num_envs: int,
        autoreset_mode: AutoresetMode,
        length: int = 1,
        leak: Callable[[dict[str, np.ndarray], np.ndarray], None] = none,
    ) -> None:
        self.num_envs, self.length, self.leak = num_envs, length, leak
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space = spaces.Box(0, 99, (3,), np.int64)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.state = np.zeros((num_envs, 3), np.int64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        self.begin(mask)
        return self.state.copy(), {}

    def begin(self, mask: np.ndarray) -> None:
        contexts = self.np_random.integers(3, size=mask.sum())
        self.state[mask] = np.stack([contexts, 0 * contexts, 0 * contexts + self.length], axis=1)

    def step(self, actions: np.ndarray) -> Any:
        mode = self.metadata["autoreset_mode"]
        anew = (self.state[:, 2] == 0) & (mode is NEXT_STEP)
        rewards = np.where(anew, 0.0, actions == self.state[:, 0])
        self.state[~anew, 1] = actions[~anew]
        self.state[~anew, 2] -= 1
        if anew.any():
            self.begin(anew)
        over = self.state[:, 2] == 0
        step = {
            "seen": self.state.copy(),
            "rewards": rewards,
            "terminated": over,
            "truncated": np.zeros_like(over),
        }
        if over.all():
            self.leak(step, actions)
        infos = {}
        if mode is SAME_STEP and over.any():
            infos = {"final_obs": step["seen"].copy(), "final_info": {}}
            infos |= {"_final_obs": over.copy(), "_final_info": over.copy()}
            self.begin(over)
            step["seen"] = self.state.copy()
        return *step.values(), infos


@pytest.mark.parametrize("length", [1, 2, 7])
def test_rows_that_are_apart(length: int) -> None:
    check_vector_env(partial(Bandit, length=length), num_steps=40)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize(
    ("leak", "where"),
    [
        (reward, "rewards of row"),
        (observation, "observation of row"),
        (flag, "terminated of row"),
        (only_with_own_action_two, "rewards of row"),
    ],
)
def test_a_leak_in_the_last_step_is_found(
    leak: Any, where: str, length: int, mode: AutoresetMode
) -> None:
    make = partial(Bandit, length=length, leak=leak)
    with pytest.raises(AssertionError) as raised:
        check_vector_env(make, num_steps=60, autoreset_modes=[mode])
    assert f"breaks the law that {laws.INDEPENDENT.text}." in str(raised.value)
    assert where in str(raised.value)
