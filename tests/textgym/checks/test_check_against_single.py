"""The checker of vector environments, told what single environments give."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenVectorEnv
from textgym.checks import check_vector_env

Step = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


@pytest.fixture
def kwargs(tiny_tokenizer_dir: str, prompts_file: str) -> dict[str, Any]:
    return {
        "tokenizer": tiny_tokenizer_dir,
        "task": {"name": "file", "path": prompts_file, "test_fraction": 0},
        "reward": "length",
        "max_new_tokens": 4,
    }


def reward(step: Step) -> Step:
    observation, rewards, *flags, infos = step
    return observation, rewards * (1 + 1e-12), *flags, infos


def flags(step: Step) -> Step:
    observation, rewards, terminated, truncated, infos = step
    return observation, rewards, truncated, terminated, infos


def missing_key(step: Step) -> Step:
    step[4].get("reward_components", {}).pop("length", None)
    return step


def one_more_key(step: Step) -> Step:
    every = np.ones(len(step[1]), np.bool_)
    return *step[:4], {**step[4], "step": every, "_step": every.copy()}


def dtype_of_rewards(step: Step) -> Step:
    return step[0], step[1].astype(np.float32), *step[2:]


def dtype_of_an_info(step: Step) -> Step:
    components = step[4].get("reward_components", {})
    components.update({k: v.astype(np.float32) for k, v in components.items() if k[0] != "_"})
    return step


class Wrong(TextGenVectorEnv):
    """Does the same thing wrong in every step: nothing that it could be caught at by itself."""

    def __init__(self, *args: Any, fault: Callable[[Step], Step], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fault = fault

    def step(self, actions: np.ndarray) -> Step:
        return self._fault(super().step(actions))


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (reward, r"step \d+: rewards\[\d\]\n"),
        (flags, r"step \d+: terminated\[\d\]\n"),
        (missing_key, r"set of keys of step \d+: infos\['reward_components'\]\n"),
        (one_more_key, r"set of keys of step \d+: infos\n"),
        (dtype_of_rewards, r"dtype of step \d+: rewards\n"),
        (dtype_of_an_info, r"dtype of step \d+: infos\['reward_components'\]\['length'\]\n"),
    ],
)
def test_what_only_a_comparison_shows(
    kwargs: dict[str, Any], fault: Callable[[Step], Step], where: str
) -> None:
    make = partial(Wrong, fault=fault, **kwargs)
    check_vector_env(make, num_steps=30)
    with pytest.raises(AssertionError, match="gives what single environments give") as raised:
        check_vector_env(make, partial(gym.make, "TextGen-v0", **kwargs), num_steps=30)
    assert re.search(rf"  where:     {where}", str(raised.value)), str(raised.value)


def test_other_spaces(kwargs: dict[str, Any]) -> None:
    wider = {**kwargs, "context_length": 30}
    with pytest.raises(AssertionError, match=r"where:     single_observation_space\n"):
        check_vector_env(
            partial(gym.make_vec, "TextGen-v0", **wider),
            partial(gym.make, "TextGen-v0", **kwargs),
            num_steps=20,
        )
