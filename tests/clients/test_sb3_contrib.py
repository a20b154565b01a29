"""The algorithms of sb3-contrib: which take a language model, and which the environment alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import ARS, QRDQN, TRPO, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor

from agents import MaskableTransformerPolicy, TransformerPolicy, TransformerQPolicy

MakeEnv = Callable[..., VecMonitor]
OFF_POLICY = {"buffer_size": 200, "learning_starts": 16, "batch_size": 16, "train_freq": 4}


# With a language model


def test_masks_from_every_kind_of_environment(
    make: Callable[..., Any], make_env: MakeEnv, kwargs: dict[str, Any]
) -> None:
    envs = {
        "native": make_env(2),
        "dummy": make_vec_env("TextGen-v0", 2, env_kwargs=kwargs),
        "processes": make_vec_env(
            "textgym:TextGen-v0",
            2,
            env_kwargs=kwargs,
            vec_env_cls=SubprocVecEnv,
            vec_env_kwargs={"start_method": "fork"},
        ),
        # Gymnasium's wrappers hide methods, so that a name does not do here.
        "wrapped": ActionMasker(
            gym.make("TextGen-v0", **kwargs), lambda env: env.unwrapped.action_masks()
        ),
    }
    for env in envs.values():
        make(MaskablePPO, MaskableTransformerPolicy, env=env, batch_size=8).learn(32)
        env.close()


def test_masked_evaluation(make: Callable[..., Any], make_env: MakeEnv) -> None:
    model = make(MaskablePPO, MaskableTransformerPolicy)
    look = MaskableEvalCallback(make_env(2), eval_freq=4, n_eval_episodes=2, verbose=0)
    model.learn(32, look)
    assert np.isfinite(look.best_mean_reward)
    mean, _ = evaluate_policy(model, make_env(2), n_eval_episodes=3)
    assert np.isfinite(mean)


def test_trpo_with_attention_that_has_second_derivatives(
    make: Callable[..., Any], make_llama: Any
) -> None:
    """TRPO differentiates twice, and fused attention kernels only once."""
    model = make(TRPO)
    with pytest.raises(RuntimeError, match=r"derivative for .*attention.* is not implemented"):
        model.learn(32)
    eager = make_llama(vocab_size=11, attn_implementation="eager")
    model = make(TRPO, policy_kwargs={"model": eager})
    before = [weights.clone() for weights in model.policy.parameters()]
    model.learn(64)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(before, model.policy.parameters(), strict=True)
    )


def test_trpo_with_a_recurrent_network(make: Callable[..., Any]) -> None:
    make(TRPO, policy_kwargs={"backbone": {"name": "lstm", "width": 8}}, env=None).learn(64)


@pytest.mark.parametrize(
    ("kind", "policy", "error", "message", "settings"),
    [
        (MaskablePPO, TransformerPolicy, ValueError, "must subclass MaskableActorCritic", {}),
        # Its states are SB3's own LSTMs; a recurrent network of ours needs no such algorithm.
        (RecurrentPPO, TransformerPolicy, AttributeError, "no attribute 'lstm_actor'", {}),
        (QRDQN, TransformerQPolicy, AttributeError, "no attribute 'quantile_net'", OFF_POLICY),
    ],
)
def test_those_that_want_a_network_of_their_own(
    make: Callable[..., Any],
    kind: Any,
    policy: Any,
    error: Any,
    message: str,
    settings: dict[str, Any],
) -> None:
    with pytest.raises(error, match=message):
        make(kind, policy, **settings)


# With the networks that the libraries have


@pytest.mark.parametrize(
    ("kind", "policy", "settings"),
    [
        (PPO, "MultiInputPolicy", {}),
        (A2C, "MultiInputPolicy", {"batch_size": None}),
        (TRPO, "MultiInputPolicy", {}),
        (MaskablePPO, "MultiInputPolicy", {}),
        (RecurrentPPO, "MultiInputLstmPolicy", {}),
        (DQN, "MultiInputPolicy", OFF_POLICY),
        (QRDQN, "MultiInputPolicy", OFF_POLICY),
    ],
)
def test_a_network_of_numbers_plays_too(
    make: Callable[..., Any], kind: Any, policy: str, settings: dict[str, Any]
) -> None:
    """They see token ids as magnitudes: nothing to learn a language with, but it runs."""
    make(kind, policy, device="cpu", **settings).learn(64)


def test_those_that_take_no_observation_of_several_arrays(make_env: MakeEnv) -> None:
    with pytest.raises(ValueError, match="You must use `MultiInputPolicy`"):
        PPO("MlpPolicy", make_env())
    with pytest.raises(ValueError, match="Policy MultiInputPolicy unknown"):
        ARS("MultiInputPolicy", make_env())
