"""Stable-Baselines3's wrappers of vector environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from agents import TokenPPO


@pytest.mark.parametrize("kind", [TokenPPO, PPO])
def test_rewards_normalised_and_checked(
    kind: Any, make: Callable[..., Any], make_env: Callable[..., VecMonitor], tmp_path: Path
) -> None:
    env = VecNormalize(VecCheckNan(make_env(), raise_exception=True), norm_obs=False)
    model = make(kind, env=env)
    model.learn(96)
    assert env.ret_rms.var > 0
    # The monitor inside of the wrapper saw what the environment paid.
    assert max(episode["r"] for episode in model.ep_info_buffer) <= 1.5
    env.save(str(tmp_path / "normalize.pkl"))
    again = VecNormalize.load(str(tmp_path / "normalize.pkl"), make_env())
    assert again.ret_rms.var == env.ret_rms.var
    again.training = False
    again.reset()
    rewards = again.step(np.full(4, 1))[1]
    np.testing.assert_allclose(rewards, again.normalize_reward(again.get_original_reward()))


def test_what_the_monitor_writes_can_be_read(
    make: Callable[..., Any], make_env: Callable[..., VecMonitor], tmp_path: Path
) -> None:
    env = VecMonitor(make_env().venv, str(tmp_path / "log"), info_keywords=("text",))
    make(env=env).learn(64)
    env.close()
    results = load_results(str(tmp_path))
    assert len(results) > 8
    assert results["l"].between(1, 6).all()
    assert {"r", "t", "text"} <= set(results.columns)


def test_a_part_of_the_observation(make_env: Callable[..., VecMonitor]) -> None:
    env = VecExtractDictObs(make_env(), "input_ids")
    assert env.reset().shape == (4, *env.observation_space.shape)
    PPO("MlpPolicy", env, n_steps=8, batch_size=32, device="cpu").learn(32)


def test_stacked_texts_are_refused(
    make: Callable[..., Any], make_env: Callable[..., VecMonitor]
) -> None:
    """Two texts side by side, padded in the middle, are no text."""
    with pytest.raises(ValueError, match="does not begin with 1"):
        make(PPO, env=VecFrameStack(make_env(), 2)).learn(32)


def test_normalised_tokens_are_refused(
    make: Callable[..., Any], make_env: Callable[..., VecMonitor]
) -> None:
    with pytest.raises(ValueError, match=r"Use VecNormalize\(..., norm_obs=False\)"):
        make(env=VecNormalize(make_env())).learn(32)
