"""The checkers that Gymnasium and Stable-Baselines3 have for single environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.utils.env_match import check_environments_match
from gymnasium.utils.performance import benchmark_step
from stable_baselines3.common.env_checker import check_env as sb3_check


def test_gymnasiums(kwargs: dict[str, Any]) -> None:
    gymnasium_check(gym.make("TextGen-v0", **kwargs).unwrapped)
    gymnasium_check(gym.make("TextGen-v0").unwrapped)


@pytest.mark.parametrize("mode", [None, "ansi", "rgb_array"])
def test_stable_baselines(kwargs: dict[str, Any], mode: str | None) -> None:
    env = gym.make("TextGen-v0", render_mode=mode, **kwargs)
    sb3_check(env.unwrapped, warn=True, skip_render_check=mode is None)


def test_two_alike_match(kwargs: dict[str, Any]) -> None:
    envs = [gym.make("TextGen-v0", render_mode="ansi", **kwargs) for _ in range(2)]
    check_environments_match(*envs, num_steps=60)


def test_gymnasiums_stopwatch(kwargs: dict[str, Any]) -> None:
    assert benchmark_step(gym.make("TextGen-v0", **kwargs), target_duration=0.05) > 100
