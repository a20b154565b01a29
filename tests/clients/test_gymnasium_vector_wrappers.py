"""Gymnasium's vector wrappers, in every autoreset mode, with warnings as errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers as single
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import vector as wrappers
from stable_baselines3.common.vec_env import VecMonitor

from agents import VectorEnvBridge

AnyVectorEnv = VectorEnv[Any, Any, Any]
MODES = list(AutoresetMode)
STEPS = 60


def of_rewards(env: AnyVectorEnv) -> AnyVectorEnv:
    env = wrappers.TransformReward(env, lambda rewards: 2 * rewards)
    env = wrappers.ClipReward(env, -1, 1)
    func = {"func": lambda reward: reward + 1}
    return wrappers.VectorizeTransformReward(env, single.TransformReward, **func)


REWARDS = {
    "normalised": wrappers.NormalizeReward,
    "transformed": of_rewards,
    "infos as lists": wrappers.DictInfoToList,
}
OBSERVATIONS: dict[str, Callable[[AnyVectorEnv], AnyVectorEnv]] = {
    "filtered": lambda env: wrappers.FilterObservation(env, ["input_ids"]),
    "flat": wrappers.FlattenObservation,
    "transformed": lambda env: wrappers.TransformObservation(env, lambda seen: seen),
    "transformed row by row": lambda env: wrappers.VectorizeTransformObservation(
        env, single.FilterObservation, filter_keys=["input_ids"]
    ),
}


@pytest.fixture
def make_vector(kwargs: dict[str, Any]) -> Callable[..., AnyVectorEnv]:
    def make(mode: AutoresetMode, n: int = 3, **more: Any) -> AnyVectorEnv:
        return gym.make_vec("TextGen-v0", n, autoreset_mode=mode, **{**kwargs, **more})

    return make


def play(env: AnyVectorEnv) -> list[tuple[Any, ...]]:
    """Random steps; each comes with the rows that were over before."""
    results = []
    rng = np.random.default_rng(0)
    over = np.zeros(env.num_envs, np.bool_)
    env.reset(seed=0)
    for _ in range(STEPS):
        if over.any() and env.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            env.reset(options={"reset_mask": over})
        observation, rewards, terminated, truncated, infos = env.step(rng.integers(0, 11, 3))
        assert observation in env.observation_space
        results.append((rewards, terminated | truncated, infos, over))
        over = terminated | truncated
    return results


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REWARDS)
def test_wrappers_of_rewards(
    make_vector: Callable[..., AnyVectorEnv], name: str, mode: AutoresetMode
) -> None:
    plain, wrapped = play(make_vector(mode)), play(REWARDS[name](make_vector(mode)))
    for (rewards, over, *_), (changed, same_over, *_) in zip(plain, wrapped, strict=True):
        np.testing.assert_array_equal(over, same_over)
        if name == "transformed":
            np.testing.assert_allclose(changed, np.clip(2 * rewards, -1, 1) + 1)
    if name == "normalised":
        assert np.concatenate([result[0] for result in wrapped]).std() > 0.3
    if name == "infos as lists":
        every = [result[2] for result in wrapped]
        assert all(isinstance(infos, list) and len(infos) == 3 for infos in every)
        assert any("final_info" in info for infos in every for info in infos) == (
            mode is AutoresetMode.SAME_STEP
        )


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_wrappers_of_observations(make_vector: Callable[..., AnyVectorEnv], name: str) -> None:
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        play(OBSERVATIONS[name](make_vector(mode)))
    with pytest.raises(ValueError, match="Expected autoreset_mode to be NEXT_STEP or DISABLED"):
        # They would miss the last observations, which are in the infos.
        OBSERVATIONS[name](make_vector(AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("mode", MODES)
def test_episode_statistics(make_vector: Callable[..., AnyVectorEnv], mode: AutoresetMode) -> None:
    env = wrappers.RecordEpisodeStatistics(make_vector(mode))
    totals, episodes = np.zeros((2, 3)), 0
    for rewards, over, infos, over_before in play(env):
        totals[:, over_before] = 0.0
        totals += (rewards, ~over_before if mode is AutoresetMode.NEXT_STEP else np.ones(3))
        assert ("episode" in infos) == over.any()
        if over.any():
            episodes += int(over.sum())
            recorded = [infos["episode"]["r"][over], infos["episode"]["l"][over]]
            np.testing.assert_allclose(recorded, totals[:, over], atol=1e-6)
    assert episodes == env.episode_count > 20


def test_wrapped_environments_train(
    make_vector: Callable[..., AnyVectorEnv], make: Callable[..., Any]
) -> None:
    env: Any = make_vector(AutoresetMode.SAME_STEP, 4)
    env = wrappers.NormalizeReward(wrappers.RecordEpisodeStatistics(env))
    model = make(env=VecMonitor(VectorEnvBridge(env), info_keywords=()), n_epochs=1)
    model.learn(96)
    assert model.get_env().get_attr("episode_count")[0] > 10


def test_single_ones_wrapped_in_a_batch(kwargs: dict[str, Any]) -> None:
    env = gym.make_vec(
        "TextGen-v0",
        3,
        vectorization_mode="sync",
        wrappers=[single.RecordEpisodeStatistics, single.FlattenObservation],
        **kwargs,
    )
    assert sum("episode" in infos for _, _, infos, _ in play(env)) > 10


def test_tensors_want_infos_that_are_numbers(
    make_vector: Callable[..., AnyVectorEnv], kwargs: dict[str, Any]
) -> None:
    """Gymnasium makes tensors of all infos, and of texts there are none: so it is with its own."""
    from gymnasium.wrappers.vector.numpy_to_torch import NumpyToTorch

    native = make_vector(AutoresetMode.NEXT_STEP)
    its_own = SyncVectorEnv([partial(gym.make, "TextGen-v0", **kwargs)] * 3)
    for env in (native, its_own):
        with pytest.raises(BufferError, match="DLPack only supports"):
            NumpyToTorch(env).reset(seed=0)
