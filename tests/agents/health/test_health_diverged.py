"""What is not finite stops a training, before it reaches the weights where that can be."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper

from agents import (
    GRPO,
    RLOO,
    Diverged,
    HealthCheck,
    Reinforce,
    TokenA2C,
    TokenDQN,
    TokenPPO,
    TokenReplayBuffer,
    TransformerPolicy,
    TransformerQPolicy,
    make_sb3_vec_env,
)
from agents.evaluation import evaluate
from agents.health import first_non_finite

N_ENVS = 8
PASSES = {"n_steps": 8, "batch_size": 16, "n_epochs": 2}
Q = {"learning_starts": 16, "batch_size": 16, "train_freq": 8}
OURS = {
    "ppo": (TokenPPO, TransformerPolicy, PASSES),
    "a2c": (TokenA2C, TransformerPolicy, {"n_steps": 8}),
    "reinforce": (Reinforce, TransformerPolicy, {}),
    "grpo": (GRPO, TransformerPolicy, {"group_size": 4}),
    "rloo": (RLOO, TransformerPolicy, {"group_size": 4}),
    "dqn": (TokenDQN, TransformerQPolicy, {**Q, "sequence_length": 4}),
}
STOCK = {
    "sb3-ppo": (PPO, TransformerPolicy, PASSES),
    "sb3-a2c": (A2C, TransformerPolicy, {"n_steps": 8}),
    "sb3-dqn": (DQN, TransformerQPolicy, {**Q, "replay_buffer_class": TokenReplayBuffer}),
}


class Paying(VecEnvWrapper):
    """Pays one row something else, from a step on, where no reward of textgym can see it."""

    def __init__(self, venv, amount, after=12):
        super().__init__(venv)
        self.amount, self.after, self.steps = amount, after, 0

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        if self.steps > self.after:
            rewards = rewards.copy()
            rewards[2] = self.amount
        return observations, rewards, dones, infos


class Spoil(BaseCallback):
    """Writes a number into a weight before the second rollout."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        if self.num_timesteps:
            weights = dict(self.model.policy.named_parameters())
            name = next(name for name in weights if name.endswith("mlp.up_proj.weight"))
            with torch.no_grad():
                weights[name][0, 0] = self.number


@pytest.fixture
def make_env(tiny_tokenizer_dir):
    def make():
        kwargs = {
            "tokenizer": tiny_tokenizer_dir,
            "task": {"name": "target_token"},
            "reward": "length",
            "max_new_tokens": 4,
            "budget_is_terminal": True,
        }
        return make_sb3_vec_env("TextGen-v0", N_ENVS, seed=0, env_kwargs=kwargs)

    return make


@pytest.fixture
def make(make_env, make_llama):
    """Makes an algorithm of a tiny random model."""

    def make(kind, env=None, learning_rate=1e-4):
        algorithm, policy, settings = {**OURS, **STOCK}[kind]
        torch.manual_seed(0)
        policy_kwargs = {"model": make_llama(vocab_size=11)}
        env = env or make_env()
        return algorithm(
            policy, env, learning_rate, policy_kwargs=policy_kwargs, seed=0, **settings
        )

    return make


def stops(algorithm, callback=None):
    with pytest.raises(Diverged) as caught:
        algorithm.learn(512, callback=callback)
    return caught.value


@pytest.mark.parametrize("kind", [*OURS])
def test_a_loss_that_is_no_number_stops_before_the_step(kind, make, monkeypatch):
    algorithm = make(kind)
    steps = []
    algorithm.policy.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    if kind == "dqn":
        of = algorithm._q_values_and_targets
        monkeypatch.setattr(
            algorithm,
            "_q_values_and_targets",
            lambda *a: [part * (torch.nan if steps else 1) for part in of(*a)],
        )
    else:
        of = algorithm._policy_loss
        nan = torch.tensor(torch.nan)
        monkeypatch.setattr(
            algorithm,
            "_policy_loss",
            lambda tokens: (of(tokens)[0] * (nan if steps else 1), of(tokens)[1]),
        )
    error = stops(algorithm)
    assert len(steps) == 1
    assert first_non_finite(algorithm.policy) is None
    assert all(weights.grad is None for weights in algorithm.policy.parameters())
    assert "the loss is nan" in str(error)
    assert f"after {algorithm.num_timesteps:,} tokens (n_updates" in str(error)
    assert "learning rate (it is 0.0001)" in str(error)
    assert "error.batch" in str(error)
    rows, longest = error.batch["input_ids"].shape
    assert (error.batch["lengths"] <= longest).all()
    assert (error.batch["context_lengths"] < error.batch["lengths"]).all()
    assert rows >= 1


def test_a_gradient_that_overflows_stops_before_the_step(make):
    algorithm = make("ppo")
    # Finite where it is read, infinite on the way back.
    algorithm.policy.value_net.weight.register_hook(lambda gradient: gradient * torch.inf)
    with torch.no_grad():
        algorithm.policy.value_net.bias += 1
    error = stops(algorithm)
    assert "the gradient's norm is" in error.found
    assert first_non_finite(algorithm.policy) is None
    assert algorithm._n_updates == 0


def test_the_batch_is_what_was_learned_from(make, monkeypatch):
    algorithm = make("ppo")
    monkeypatch.setattr(algorithm, "_policy_loss", lambda t: (t.log_probs * torch.nan, {}))
    batch, buffer = stops(algorithm).batch, algorithm.rollout_buffer
    for ids, context, length, rewards, log_probs, new in zip(
        *(batch[n] for n in ("input_ids", "context_lengths", "lengths")),
        *(batch[n] for n in ("rewards", "log_probs", "new_log_probs")),
        strict=True,
    ):
        written = length - context
        of_row = [
            (segment.begin, segment.row)
            for segment in buffer.segments
            if segment.steps == written
            and np.array_equal(segment.context, ids[:context])
            and np.array_equal(
                buffer.actions[segment.begin : segment.end, segment.row], ids[context:length]
            )
            and np.array_equal(
                buffer.rewards[segment.begin : segment.end, segment.row], rewards[:written]
            )
        ]
        assert of_row
        assert not rewards[written:].any()
        np.testing.assert_allclose(new, log_probs, atol=1e-5)  # no step was taken yet


@pytest.mark.parametrize("kind", [*OURS, *STOCK])
@pytest.mark.parametrize("amount", [np.inf, np.nan])
def test_a_reward_that_is_no_number_stops_at_once(kind, amount, make, make_env):
    algorithm = make(kind, Paying(make_env(), amount))
    error = stops(algorithm, HealthCheck())
    assert f"the reward of a token is {amount}" in error.found
    assert error.by_reward
    assert first_non_finite(algorithm.policy) is None
    assert error.batch["rewards"].shape == (N_ENVS, 1)
    assert not np.isfinite(error.batch["rewards"][2, 0])
    assert np.isfinite(np.delete(error.batch["rewards"], 2)).all()


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("amount", "why"), [(3e38, "overflow"), (1e25, r"rewards are up to 1e\+25")]
)
def test_rewards_that_are_too_large_are_told_from_a_bad_step(amount, why, make, make_env):
    error = stops(make("ppo", Paying(make_env(), amount)))
    assert re.search(why, error.why)
    assert "rewards" in error.why
    assert error.by_reward


@pytest.mark.parametrize("kind", [*OURS, *STOCK])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_named(kind, number, make):
    error = stops(make(kind), [HealthCheck(), Spoil(number)])
    assert "not finite" in str(error) or "spoilt" in str(error)
    assert "proj.weight" in str(error) or "embed_tokens.weight" in str(error)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("kind", ["ppo", "a2c", "sb3-ppo", "sb3-a2c", "sb3-dqn"])
def test_a_learning_rate_of_a_quintillion(kind, make):
    error = stops(make(kind, learning_rate=1e18), HealthCheck())
    assert "lower learning rate (it is 1e+18)" in str(error)


def test_evaluation_says_so_too(make_llama, tiny_tokenizer_dir, make):
    policy = make("ppo").policy
    with torch.no_grad():
        policy.backbone.head.weight[3] = torch.nan
    kwargs = {"tokenizer": tiny_tokenizer_dir, "task": {"name": "target_token"}}
    with pytest.raises(Diverged, match=r"the first in .*weight"):
        evaluate(policy, {**kwargs, "max_new_tokens": 4}, [{"prompt_index": 0}])


def test_target_kl_does_not_hide_it(make, monkeypatch):
    algorithm = make("ppo")
    algorithm.target_kl = 0.1
    monkeypatch.setattr(algorithm, "_policy_loss", lambda t: (t.log_probs * torch.nan, {}))
    stops(algorithm)


def test_the_batch_can_be_read_by_people(make, monkeypatch, tmp_path, byte_tokenizer):
    algorithm = make("grpo")
    monkeypatch.setattr(algorithm, "_policy_loss", lambda t: (t.log_probs * torch.nan, {}))
    error = stops(algorithm)
    error.save(tmp_path / "diverged", lambda ids: "".join("_abcdefghij"[i] for i in ids))
    assert str(tmp_path / "diverged") in str(error)
    arrays = load_file(tmp_path / "diverged" / "batch.safetensors")
    assert arrays.keys() == error.batch.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, error.batch[name])
    report = json.loads((tmp_path / "diverged" / "report.json").read_text())
    assert report["found"] == error.found
    assert len(report["texts"]) == len(arrays["input_ids"])
    for text, length in zip(report["texts"], arrays["lengths"], strict=True):
        assert len(text["prompt"] + text["text"]) == length
    assert report["not_finite"] == {}


def test_it_goes_from_one_process_to_another():
    error = Diverged("the loss is nan", "why", "cure", {"rewards": np.ones((1, 2))}, by_reward=True)
    error.when = "after 3 tokens"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.by_reward
    np.testing.assert_array_equal(again.batch["rewards"], error.batch["rewards"])


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_first_non_finite_names_it(number):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    assert first_non_finite(network) is None
    with torch.no_grad():
        network[1].bias[1] = number
    assert first_non_finite(network) == "1.bias"


def test_large_weights_are_finite():
    network = torch.nn.Linear(4, 4)
    torch.nn.init.constant_(network.weight, 3e38)  # their sum is not
    assert first_non_finite(network) is None
