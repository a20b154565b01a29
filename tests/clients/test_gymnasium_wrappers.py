"""Gymnasium's wrappers around a single environment, with warnings as errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium import wrappers
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor

from agents import TokenPPO, TransformerPolicy

Wrap = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]


def play(env: gym.Env[Any, Any], steps: int = 30) -> list[tuple[Any, ...]]:
    """Random steps; an episode that is over is begun anew."""
    results = []
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    env.action_space.seed(0)
    for _ in range(steps):
        results.append(env.step(env.action_space.sample()))
        assert results[-1][0] in env.observation_space
        if (results[-1][2] or results[-1][3]) and not isinstance(env, wrappers.Autoreset):
            env.reset()
    env.close()
    return results


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
        lambda env: wrappers.ClipReward(env, -1, 1),
        wrappers.NormalizeReward,
        lambda env: wrappers.TransformAction(env, lambda action: action, env.action_space),
        lambda env: wrappers.StickyAction(env, 0.3),
        lambda env: wrappers.RepeatAction(env, 2),
        lambda env: wrappers.FilterObservation(env, ["input_ids"]),
        wrappers.FlattenObservation,
        lambda env: wrappers.TransformObservation(env, lambda seen: seen, env.observation_space),
        lambda env: wrappers.FrameStackObservation(env, 2),
        lambda env: wrappers.DelayObservation(env, 2),
        lambda env: wrappers.TimeAwareObservation(wrappers.TimeLimit(env, 4)),
        wrappers.Autoreset,
        wrappers.OrderEnforcing,
        wrappers.PassiveEnvChecker,
        wrappers.RecordEpisodeStatistics,
    ],
)
def test_it_plays_on(wrap: Wrap, kwargs: dict[str, Any]) -> None:
    results = play(wrap(gym.make("TextGen-v0", **kwargs)))
    assert sum(bool(terminated or truncated) for _, _, terminated, truncated, _ in results) > 3


def test_episode_statistics(kwargs: dict[str, Any]) -> None:
    total, count = 0.0, 0
    for _, reward, terminated, truncated, info in play(
        wrappers.RecordEpisodeStatistics(gym.make("TextGen-v0", **kwargs))
    ):
        total, count = total + reward, count + 1
        assert ("episode" in info) == (terminated or truncated)
        if "episode" in info:
            assert info["episode"]["l"] == count
            assert info["episode"]["r"] == pytest.approx(total)
            total, count = 0.0, 0


def test_a_time_limit_cuts(kwargs: dict[str, Any]) -> None:
    for env in (
        wrappers.TimeLimit(gym.make("TextGen-v0", **kwargs), 3),
        gym.make("TextGen-v0", max_episode_steps=3, **kwargs),
    ):
        env.reset(seed=0)
        ends = [env.step(1)[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]


def test_pictures(kwargs: dict[str, Any]) -> None:
    env = wrappers.RenderCollection(gym.make("TextGen-v0", render_mode="rgb_array", **kwargs))
    env.reset(seed=0)
    env.step(1)
    assert [picture.shape for picture in env.render()] == [(360, 640, 3)] * 2  # type: ignore[union-attr]
    seen = wrappers.AddRenderObservation(
        gym.make("TextGen-v0", render_mode="rgb_array", **kwargs), render_only=True
    )
    assert seen.reset(seed=0)[0].shape == (360, 640, 3)


def test_tensors(kwargs: dict[str, Any]) -> None:
    from gymnasium.wrappers.numpy_to_torch import NumpyToTorch

    env = NumpyToTorch(gym.make("TextGen-v0", **kwargs))
    observation, _ = env.reset(seed=0)
    assert observation["input_ids"].dtype == torch.int64
    observation, reward, *_ = env.step(torch.tensor(1))
    assert observation["attention_mask"].sum() == 2
    assert isinstance(reward, float)


@pytest.mark.parametrize(
    "wrap", [wrappers.NormalizeObservation, lambda env: wrappers.MaxAndSkipObservation(env, 2)]
)
def test_those_that_want_one_array(wrap: Wrap, kwargs: dict[str, Any]) -> None:
    """They take a Box; an observation of ours is two arrays, and neither has a mean."""
    with pytest.raises(ValueError, match=r"observation space (to|must) have (a|the) shape"):
        wrap(gym.make("TextGen-v0", **kwargs))


def test_a_wrapped_environment_trains(kwargs: dict[str, Any], make: Callable[..., Any]) -> None:
    env = wrappers.TransformReward(gym.make("TextGen-v0", **kwargs), lambda reward: reward - 0.1)
    for kind in (TokenPPO, PPO):
        model = make(kind, env=Monitor(env), batch_size=8)
        model.learn(32)
        assert len(model.ep_info_buffer) > 2


@pytest.mark.parametrize(
    "wrap", [wrappers.FlattenObservation, lambda env: wrappers.FrameStackObservation(env, 2)]
)
def test_a_policy_of_tokens_wants_tokens(
    wrap: Wrap, kwargs: dict[str, Any], make_llama: Any
) -> None:
    env = wrap(gym.make("TextGen-v0", **kwargs))
    with pytest.raises(ValueError, match="Do not flatten or stack observations"):
        PPO(TransformerPolicy, env, policy_kwargs={"model": make_llama(vocab_size=11)})
