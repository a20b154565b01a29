"""Stable-Baselines3's `make_vec_env`, in this process and in others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from agents import VectorEnvBridge

ID = "textgym:TextGen-v0"
"""With the module, so that processes which begin with nothing import it."""


def in_processes(n: int, kwargs: dict[str, Any]) -> VecEnv:
    return make_vec_env(
        ID,
        n,
        seed=0,
        env_kwargs=kwargs,
        vec_env_cls=SubprocVecEnv,
        vec_env_kwargs={"start_method": "fork"},
    )


def bridged_processes(n: int, kwargs: dict[str, Any]) -> VecEnv:
    rows = [partial(gym.make, ID, **kwargs)] * n
    env = VectorEnvBridge(AsyncVectorEnv(rows, autoreset_mode=AutoresetMode.SAME_STEP))
    env.seed(0)
    return VecMonitor(env)


WAYS: dict[str, Callable[[int, dict[str, Any]], VecEnv]] = {
    "dummy": lambda n, kwargs: make_vec_env(ID, n, seed=0, env_kwargs=kwargs),
    "processes": in_processes,
    "processes of Gymnasium's, bridged": bridged_processes,
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_in_every_kind(
    way: str, kwargs: dict[str, Any], make: Callable[..., Any]
) -> None:
    ours = make(n_epochs=2).learn(96)
    env = WAYS[way](4, kwargs)
    try:
        theirs = make(env=env, n_epochs=2).learn(96)
    finally:
        env.close()
    for name, weights in ours.policy.state_dict().items():
        torch.testing.assert_close(theirs.policy.state_dict()[name], weights, rtol=0, atol=1e-6)
    episodes = [[(e["r"], e["l"]) for e in model.ep_info_buffer] for model in (ours, theirs)]
    assert len(episodes[0]) > 10
    np.testing.assert_allclose(*episodes, atol=1e-5)


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
def test_processes_begun_in_every_way(start_method: str, kwargs: dict[str, Any]) -> None:
    settings = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": start_method}}
    env = make_vec_env(ID, 1, seed=0, env_kwargs=kwargs, **settings)
    dummy = make_vec_env(ID, 1, seed=0, env_kwargs=kwargs)
    try:
        np.testing.assert_equal(env.reset(), dummy.reset())
        for token in (1, 2, 0, 3):
            one, other = (both.step(np.array([token])) for both in (env, dummy))
            for part in (*one[3], *other[3]):
                part.get("episode", {}).pop("t", None)  # seconds
            np.testing.assert_equal([*one[:3], *one[3]], [*other[:3], *other[3]])
        assert env.env_method("action_masks")[0].shape == (11,)
        assert env.get_attr("tokenizer")[0].eos_token_id == 0
        assert env.get_images()[0].shape == (360, 640, 3)
    finally:
        env.close()


def test_processes_survive_questions_that_they_cannot_answer(kwargs: dict[str, Any]) -> None:
    """Gymnasium ends those that are asked for an attribute which they have not."""
    env = bridged_processes(2, kwargs)
    try:
        assert not env.has_attr("hold")
        for ask in (env.get_attr, env.env_method):
            with pytest.raises(AttributeError, match="have no attribute 'hold'"):
                ask("hold")
        assert len(env.env_method("action_masks")) == 2
        env.reset()
    finally:
        env.close()


def test_stock_ppo_in_processes(kwargs: dict[str, Any], make: Callable[..., Any]) -> None:
    env = in_processes(2, kwargs)
    try:
        make(PPO, env=env, batch_size=16).learn(32)
    finally:
        env.close()


def test_single_environments_are_given_pictures_to_show(kwargs: dict[str, Any]) -> None:
    env = make_vec_env("TextGen-v0", 2, seed=0, env_kwargs=kwargs)
    assert isinstance(env, DummyVecEnv)
    assert env.reset()["input_ids"].dtype == np.int64
    env.step(np.array([1, 2]))
    assert env.get_images()[0].shape == (360, 640, 3)
    env.close()
