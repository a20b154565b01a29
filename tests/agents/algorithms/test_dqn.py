"""TokenDQN takes the steps of stock DQN, and sees to exploring its own way."""

import copy
import string

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from agents import (
    TokenDQN,
    TokenReplayBuffer,
    TransformerPolicy,
    TransformerQPolicy,
    make_sb3_vec_env,
)
from agents.schedules import Linear

SGD = {"optimizer_class": torch.optim.SGD}
"""Adam would make much of the rounding of gradients that are next to nothing."""


@pytest.fixture
def make_env(text_kwargs):
    def make(n_envs=4, **more):
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs={**text_kwargs, **more})

    return make


@pytest.fixture
def make_dqn(make_env, make_llama):
    def make(algorithm=TokenDQN, env=None, policy=None, **settings):
        torch.manual_seed(0)
        if algorithm is DQN:
            settings = {"replay_buffer_class": TokenReplayBuffer, **settings}
        dqn = algorithm(
            TransformerQPolicy,
            env or make_env(),
            policy_kwargs={"model": make_llama(vocab_size=11), **SGD, **(policy or {})},
            **{"learning_rate": 0.1, "learning_starts": 0, "seed": 0, **settings},
        )
        with torch.no_grad():  # else the target network would say the same
            for parameter in dqn.q_net.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            dqn.policy.value_head.weight.normal_()
        return dqn

    return make


def collected(dqn, steps=40):
    """Fill the buffer with what is written by an untrained policy."""
    dqn.gradient_steps = 0
    return dqn.learn(steps * dqn.n_envs)


def close(ours, stock):
    for (name, a), b in zip(ours.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


# The step that it takes


GAME = {
    "task": {"name": "game", "num_games": 30},
    "reward": {"letters": lambda turns: float(sum(map(len, turns)))},
    "stop": [*string.ascii_letters],
    "max_new_tokens": 12,
}


@pytest.mark.parametrize("environment", ["text", "game", "normalised"])
@pytest.mark.parametrize("sequence_length", [1, 4])
def test_the_step_is_that_of_stock_dqn(
    make_dqn, make_env, byte_tokenizer_dir, make_llama, sequence_length, environment, monkeypatch
):
    policy = {}
    if environment == "game":  # which answers between turns
        policy = {"model": make_llama(max_position_embeddings=512)}

    def env():
        env = make_env(**(GAME | {"tokenizer": byte_tokenizer_dir} if policy else {}))
        return VecNormalize(env, norm_obs=False) if environment == "normalised" else env

    settings = {"gamma": 0.9, "max_grad_norm": 0.5}
    ours = make_dqn(env=env(), policy=policy, sequence_length=sequence_length, **settings)
    collected(ours)
    stock = make_dqn(DQN, env=env(), policy=copy.deepcopy(policy), **settings)
    stock.set_parameters(ours.get_parameters())
    stock.replay_buffer, stock._logger = ours.replay_buffer, ours.logger
    stock._vec_normalize_env = ours._vec_normalize_env
    if sequence_length > 1:
        buffer = ours.replay_buffer

        def sample(batch_size, env):
            return buffer.observed(*buffer.draw(batch_size, sequence_length), env)

        monkeypatch.setattr(buffer, "sample", sample)
    before = copy.deepcopy(ours.policy)
    for dqn in (ours, stock):
        np.random.seed(0)
        dqn.train(gradient_steps=3, batch_size=32)
    close(ours.policy, stock.policy)
    pairs = zip(before.parameters(), ours.policy.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert ours.logger.name_to_value["train/loss"] > 0


def test_double_learning_values_what_the_trained_network_would_choose(make_dqn):
    dqn = collected(make_dqn(double=True, gamma=0.9, max_grad_norm=1e9))
    by_hand = copy.deepcopy(dqn.policy)
    np.random.seed(0)
    samples = dqn.replay_buffer.observed(*dqn.replay_buffer.draw(64, dqn.sequence_length))
    with torch.no_grad():
        chosen = by_hand.q_net(samples.next_observations).argmax(1)
        highest = by_hand.q_net_target(samples.next_observations).argmax(1)
        assert (chosen != highest).any()
        values = by_hand.q_net_target(samples.next_observations)[torch.arange(64), chosen]
    targets = samples.rewards[:, 0] + 0.9 * (1 - samples.dones[:, 0]) * values
    q_values = by_hand.q_net(samples.observations)[torch.arange(64), samples.actions[:, 0]]
    gap = (q_values - targets).abs()
    loss = torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    loss.backward()
    np.random.seed(0)
    dqn.train(gradient_steps=1, batch_size=64)
    with torch.no_grad():
        for parameter in by_hand.q_net.parameters():
            parameter -= 0.1 * parameter.grad
    close(dqn.policy.q_net, by_hand.q_net)
    assert dqn.logger.name_to_value["train/loss"] == pytest.approx(loss.item(), rel=1e-5)


# What it writes


def test_without_exploring_it_writes_and_stores_what_it_predicts(make_dqn):
    dqn = collected(make_dqn(epsilon=0.0))
    buffer = dqn.replay_buffer
    assert buffer.size() == 40
    steps, rows = (array.reshape(-1) for array in np.indices((40, 4)))
    stored = buffer.observed(steps, rows)
    observations = {key: value.numpy() for key, value in stored.observations.items()}
    expected, _ = dqn.predict(observations)
    assert stored.actions[:, 0].tolist() == expected.tolist()
    assert buffer.dones.any()
    grown = stored.next_observations["attention_mask"].sum(1, dtype=torch.long)
    assert torch.equal(grown, stored.observations["attention_mask"].sum(1) + 1)


@pytest.mark.parametrize("by", ["rollout", "predict"])
def test_each_row_tosses_its_own_coin(make_dqn, make_env, by):
    epsilon, n = 0.4, 64
    dqn = make_dqn(env=make_env(n, vocabulary=["b", "d", "g"]), epsilon=epsilon)
    greedy, actions = [], []
    if by == "rollout":
        collected(dqn, 40)
        steps, rows = (array.reshape(-1) for array in np.indices((40, n)))
        stored = dqn.replay_buffer.observed(steps, rows)
        observations = {key: value.numpy() for key, value in stored.observations.items()}
        actions = stored.actions.numpy().reshape(40, n)
        greedy = dqn.predict(observations, deterministic=True)[0].reshape(40, n)
    else:
        observations = dqn.env.reset()
        actions = np.stack([dqn.predict(observations)[0] for _ in range(40)])
        greedy = dqn.predict(observations, deterministic=True)[0]
    differ = actions != greedy
    others = epsilon * 3 / 4  # one of four is the greedy one
    assert differ.mean() == pytest.approx(others, abs=0.04)
    # Of one coin for all rows the share of a step would be 0 or near 0.75.
    assert ((differ.mean(1) > 0.05) & (differ.mean(1) < 0.6)).all()
    assert set(actions[differ].tolist()) <= {0, 2, 4, 7}
    assert set(np.unique(actions)) == {0, 2, 4, 7}


def test_epsilon_follows_its_schedule(make_dqn):
    dqn = make_dqn(epsilon=Linear(0.8, 0.2, 0.5))
    assert dqn.exploration_rate == 0.8
    dqn.learn(400)
    assert dqn.exploration_rate == 0.2
    assert make_dqn(epsilon=0.3).exploration_rate == 0.3


def test_stock_dqn_keeps_its_arguments(make_dqn):
    settings = {"exploration_initial_eps": 0.5, "exploration_final_eps": 0.1}
    dqn = make_dqn(DQN, exploration_fraction=0.5, **settings).learn(400)
    assert dqn.exploration_rate == pytest.approx(0.1)


# As SB3's


def test_a_loaded_run_goes_on(make_dqn, make_env, tmp_path):
    first = make_dqn(epsilon=Linear(1.0, 0.1), double=True, sequence_length=4).learn(200)
    first.save(tmp_path / "run.zip")
    second = TokenDQN.load(tmp_path / "run.zip", env=make_env())
    assert (second.double, second.sequence_length) == (True, 4)
    assert second.exploration_schedule(0.5) == pytest.approx(0.55)
    close(first.policy, second.policy)
    second.learn(200, reset_num_timesteps=False)
    assert second.num_timesteps == 2 * first.num_timesteps


def test_a_callback_can_stop_it(make_dqn):
    from stable_baselines3.common.callbacks import BaseCallback

    class Stop(BaseCallback):
        def _on_step(self):
            assert len(self.locals["rewards"]) == 4
            return self.num_timesteps < 20

    assert make_dqn().learn(400, callback=Stop()).num_timesteps == 20


def test_other_policies_and_wrong_arguments_are_refused(make_env, make_llama):
    with pytest.raises(TypeError, match="TokenDQN trains a TransformerQPolicy"):
        TokenDQN(TransformerPolicy, make_env())
    for wrong in ({"sequence_length": 0}, {"batch_size": 4, "sequence_length": 8}):
        with pytest.raises(ValueError, match="sequence_length must be"):
            TokenDQN(TransformerQPolicy, make_env(), **wrong)
    with pytest.raises(ValueError, match="epsilon must be from 0 to 1, got 2"):
        TokenDQN(TransformerQPolicy, make_env(), epsilon=2)


# That it learns


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_the_target_token_is_learnt(double, make_llama, tiny_tokenizer_dir):
    def make_env(n_envs, seed):
        env_kwargs = {
            "task": {"name": "target_token", "targets": [*"abcdefghij"], "num_prompts": 10},
            "reward": "target_token",
            "tokenizer": tiny_tokenizer_dir,
            "max_new_tokens": 8,
        }
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=seed, env_kwargs=env_kwargs)

    torch.manual_seed(0)
    # Tied embeddings would have the model repeat its prompt, the answer, from the start.
    model = make_llama(vocab_size=11, num_hidden_layers=1, tie_word_embeddings=False)
    dqn = TokenDQN(
        TransformerQPolicy,
        make_env(32, seed=0),
        policy_kwargs={"model": model},
        learning_rate=3e-3,
        gamma=0.5,
        batch_size=256,
        sequence_length=8,
        train_freq=8,
        gradient_steps=8,
        learning_starts=500,
        target_update_interval=500,
        epsilon=Linear(1.0, 0.1, 0.3),
        double=double,
        seed=0,
    )
    test_env = make_env(20, seed=1000)
    before, _ = evaluate_policy(dqn, test_env, n_eval_episodes=60)
    assert before < 0.3
    evaluation = EvalCallback(
        test_env,
        callback_on_new_best=StopTrainingOnRewardThreshold(0.99, verbose=0),
        n_eval_episodes=60,
        eval_freq=64,
        verbose=0,
    )
    dqn.learn(30_000, callback=evaluation)
    after, _ = evaluate_policy(dqn, test_env, n_eval_episodes=60)
    assert after > 0.9
