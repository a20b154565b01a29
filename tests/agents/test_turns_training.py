"""Tasks of several turns: what is answered is read and never learned, as by stock PPO."""

import copy
import string

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.rollout import Rollout

N_ENVS, N_STEPS = 4, 24
SETTINGS = {
    "learning_rate": 0.1,
    "n_steps": N_STEPS,
    "batch_size": N_ENVS * N_STEPS,
    "n_epochs": 2,
    "gamma": 1.0,
    "gae_lambda": 0.9,
    "seed": 0,
    "device": "cpu",
}

SGD = {"optimizer_class": torch.optim.SGD}
"""Adam would make much of the rounding of gradients that are next to nothing."""


@pytest.fixture
def rollout(make_llama, byte_tokenizer_dir, monkeypatch):
    """A rollout in a game whose turns end every few letters, and each of its steps."""
    env_kwargs = {
        "task": {"name": "game", "num_games": 30},
        # The number of a turn's letters, so that something is paid.
        "reward": {"letters": lambda turns: float(sum(map(len, turns)))},
        "stop": list(string.ascii_letters),
        "tokenizer": byte_tokenizer_dir,
        "max_new_tokens": 12,
        "budget_is_terminal": True,
    }
    env = make_sb3_vec_env("TextGen-v0", N_ENVS, seed=0, env_kwargs=env_kwargs)
    torch.manual_seed(0)
    model = make_llama(max_position_embeddings=512)
    untrained = copy.deepcopy(model)
    ours = TokenPPO(TransformerPolicy, env, **SETTINGS, policy_kwargs={"model": model, **SGD})
    steps, settle = [], Rollout.settle

    def recorded(self):
        steps.append(settle(self))
        return steps[-1]

    monkeypatch.setattr(Rollout, "settle", recorded)
    ours._setup_learn(10_000)
    callback = ours._init_callback(None)
    assert ours.collect_rollouts(env, callback, ours.rollout_buffer, N_STEPS)
    stock = PPO(TransformerPolicy, env, **SETTINGS, policy_kwargs={"model": untrained, **SGD})
    return ours, stock, steps


def tensors(observations):
    return {key: torch.as_tensor(value) for key, value in observations.items()}


def test_turns_were_taken(rollout):
    _, _, steps = rollout
    answered = [info["replies"] for step in steps for info in step.infos if info]
    assert max(map(len, answered)) >= 2
    for step in steps:
        lengths = step.observations["attention_mask"].sum(1)
        for row in range(N_ENVS):
            if not step.dones[row]:
                written = step.new_observations["input_ids"][row, lengths[row]]
                assert written == step.actions[row]


def test_the_ratio_is_1_before_the_first_step(rollout):
    ours, _, steps = rollout
    buffer = ours.rollout_buffer
    with torch.no_grad():
        for at, step in enumerate(steps):
            _, log_probs, _ = ours.policy.evaluate_actions(
                tensors(step.observations), torch.as_tensor(step.actions)
            )
            np.testing.assert_allclose(log_probs, buffer.log_probs[at], atol=2e-5)
        for batch in buffer.sequence_batches(buffer.segments, 1_024):
            _, log_probs, _ = ours.policy.evaluate_sequences(batch)
            expected = buffer.log_probs.reshape(-1)[batch.places]
            np.testing.assert_allclose(log_probs, expected, atol=2e-5)
    assert sum(segment.steps for segment in buffer.segments) == N_ENVS * N_STEPS


def test_an_update_is_that_of_stock_ppo(rollout):
    ours, stock, steps = rollout
    before = copy.deepcopy(ours.policy.state_dict())
    stock._setup_learn(10_000)
    buffer = stock.rollout_buffer
    buffer.reset()
    starts = np.ones(N_ENVS, np.bool_)
    for at, step in enumerate(steps):
        values = torch.as_tensor(ours.rollout_buffer.values[at])
        log_probs = torch.as_tensor(step.log_probs)
        buffer.add(
            step.observations, step.actions[:, None], step.rewards, starts, values, log_probs
        )
        starts = step.dones
    with torch.no_grad():
        last_values = stock.policy.predict_values(tensors(ours._last_obs))
    buffer.compute_returns_and_advantage(last_values, starts)
    np.testing.assert_allclose(buffer.advantages, ours.rollout_buffer.advantages, atol=1e-5)
    ours.train()
    stock.train()
    moved = 0.0
    for name, weights in stock.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], weights, atol=1e-5, rtol=1e-5)
        moved = max(moved, float((weights - before[name]).abs().max()))
    assert moved > 1e-3
