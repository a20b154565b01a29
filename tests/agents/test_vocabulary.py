"""A policy in an environment where only some tokens may be written."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import DummyVecEnv

import textgym
from agents import MaskableTransformerPolicy, TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.evaluation import evaluate, mean_score
from agents.reference import Reference
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.scoring import SequenceBatch
from textgym.vocabulary import Tokens

gym.register_envs(textgym)

ALLOWED = [0, 2, 4, 7]
STEPS = 60


@pytest.fixture
def few(text_kwargs):
    """The environment's arguments: the end of the text, and three of ten letters."""
    return {**text_kwargs, "vocabulary": ["b", "d", "g"]}


@pytest.fixture
def make_ppo(few, make_model):
    def make(algorithm=PPO, policy=TransformerPolicy, env=None, **policy_kwargs):
        torch.manual_seed(0)
        env = env or make_sb3_vec_env("TextGen-v0", 4, seed=0, env_kwargs=few)
        settings = {} if algorithm is A2C else {"batch_size": 16, "n_epochs": 2}
        return algorithm(
            policy,
            env,
            n_steps=16,
            seed=0,
            policy_kwargs={"model": make_model(vocab_size=16), **policy_kwargs},
            **settings,
        )

    return make


@pytest.fixture
def written(few):
    """Observations of texts, the same texts in one batch, and the tokens that follow."""
    env = make_sb3_vec_env("TextGen-v0", 5, seed=0, env_kwargs=few)
    env.action_space.seed(0)
    observations = [env.reset()]
    for _ in range(8):
        actions = np.array([env.action_space.sample() for _ in range(5)])
        observations.append(env.step(actions)[0])
    stacked = {key: np.concatenate([o[key] for o in observations]) for key in observations[0]}
    obs = obs_as_tensor(stacked, "cpu")
    lengths, columns = obs["attention_mask"].sum(1), obs["input_ids"].shape[1]
    tokens = torch.tensor(ALLOWED * 12)[: len(lengths)]
    predicted_at = torch.arange(len(lengths)) * columns + lengths - 1
    places = np.arange(len(lengths))
    return obs, SequenceBatch(obs["input_ids"], predicted_at, tokens, places), tokens


SAMPLINGS = [{}, {"temperature": 0.5}, {"top_k": 2, "temperature": 1.5}, {"top_p": 0.6}]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_rollouts_of_both_kinds_write_allowed_tokens_only(make_ppo, sampling):
    ppo = make_ppo(**sampling)
    assert ppo.policy.sampling.allowed == tuple(ALLOWED)
    policy, env = ppo.policy, ppo.env
    obs = env.reset()
    stock, fast = [], []
    for _ in range(STEPS):
        with torch.no_grad():
            actions = policy(obs_as_tensor(obs, "cpu"))[0].numpy()
        stock.extend(actions.tolist())
        obs = env.step(actions)[0]
    rollout = Rollout(Sampler(policy, env.num_envs), env, env.reset())
    for _ in range(STEPS):
        fast.extend(rollout.step().actions.tolist())
    assert len(stock) == len(fast) == 4 * STEPS
    assert {0} < set(stock) <= set(ALLOWED)
    assert {0} < set(fast) <= set(ALLOWED)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_stock_and_fast_scoring_agree(make_ppo, shake, written, sampling):
    policy = shake(make_ppo(**sampling).policy)
    obs, batch, tokens = written
    with torch.no_grad():
        allowed = policy.get_distribution(obs).distribution.probs > 0
        drawable = allowed[torch.arange(len(tokens)), tokens]
        expected = policy.evaluate_actions(obs, tokens)
        got = policy.evaluate_sequences(batch)
    if not sampling.keys() & {"top_k", "top_p"}:
        assert drawable.all()
    assert drawable.sum() > 10
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(
            one.flatten()[drawable], other.flatten()[drawable], atol=1e-5, rtol=1e-5
        )
    assert (got[2] <= math.log(len(ALLOWED)) + 1e-5).all()
    assert not allowed[:, [i for i in range(11) if i not in ALLOWED]].any()


def test_numbers_and_gradients_are_finite_and_nothing_else_is_learned(make_ppo, written):
    policy = make_ppo(temperature=0.5).policy
    _, batch, _ = written
    values, log_probs, entropies = policy.evaluate_sequences(batch)
    (values.sum() + log_probs.sum() + entropies.sum()).backward()
    for number in (log_probs, entropies):
        assert number.isfinite().all()
    assert (entropies >= 0).all()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3


def test_the_reference_is_masked_as_the_policy(make_ppo, written):
    policy = make_ppo().policy
    _, batch, _ = written
    with torch.no_grad():
        own = policy.evaluate_sequences(batch)[1]
    torch.testing.assert_close(Reference(policy).log_probs(policy.sampling, batch), own)


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [
        (PPO, TransformerPolicy),
        (A2C, TransformerPolicy),
        (MaskablePPO, MaskableTransformerPolicy),
    ],
)
def test_stock_algorithms_learn(make_ppo, algorithm, policy, tmp_path):
    model = make_ppo(algorithm, policy)
    model.learn(128)
    obs = model.env.reset()
    for deterministic in (True, False):
        assert set(model.predict(obs, deterministic=deterministic)[0].tolist()) <= set(ALLOWED)
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", env=model.env)
    assert loaded.action_space == model.action_space == Tokens(11, ALLOWED)
    assert loaded.policy.sampling == model.policy.sampling
    actions = [m.predict(obs, deterministic=True)[0].tolist() for m in (model, loaded)]
    assert actions[0] == actions[1]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_token_ppo_has_a_ratio_of_one_before_its_first_step(make_ppo, shake, sampling):
    ours = make_ppo(TokenPPO, **sampling)
    shake(ours.policy)
    env, buffer = ours.env, ours.rollout_buffer
    ours._setup_learn(64)
    assert ours.collect_rollouts(env, ours._init_callback(None), buffer, ours.n_steps)
    assert set(buffer.actions.flatten().tolist()) <= set(ALLOWED)
    everything = next(buffer.sequence_batches(buffer.segments, 10**6))
    with torch.no_grad():
        _, log_probs, _ = ours.policy.evaluate_sequences(everything)
    then = torch.as_tensor(buffer.log_probs.reshape(-1)[everything.places])
    torch.testing.assert_close(log_probs.exp(), then.exp(), atol=1e-5, rtol=1e-4)


def test_token_ppo_learns_to_write_what_pays(few, make_llama, tmp_path):
    few["reward"] = {"name": "keywords", "words": ["g"]}
    env = make_sb3_vec_env("TextGen-v0", 16, seed=0, env_kwargs=few)
    torch.manual_seed(0)
    ours = TokenPPO(
        TransformerPolicy,
        env,
        n_steps=8,
        batch_size=64,
        learning_rate=3e-3,
        seed=0,
        policy_kwargs={"model": make_llama(vocab_size=11)},
    )
    prompts = [{"prompt_index": i} for i in range(10)] * 3
    before = mean_score(evaluate(ours.policy, few, prompts))
    ours.learn(1280)
    after = mean_score(evaluate(ours.policy, few, prompts))
    assert after > before + 0.2
    ours.save(tmp_path / "ours.zip")
    loaded = TokenPPO.load(tmp_path / "ours.zip", env=env)
    assert loaded.policy.sampling.allowed == tuple(ALLOWED)
    loaded.learn(256)


def test_stock_dqn_explores_allowed_tokens_only(few):
    env = make_sb3_vec_env("TextGen-v0", 2, seed=0, env_kwargs=few)
    dqn = DQN("MultiInputPolicy", env, learning_starts=1000, buffer_size=1000, seed=0)
    dqn.learn(40)
    written = dqn.replay_buffer.actions[: dqn.replay_buffer.pos]
    assert set(written.flatten().tolist()) == set(ALLOWED)


def test_a_loaded_model_wants_the_same_vocabulary(make_ppo, few, text_kwargs, tmp_path):
    make_ppo().save(tmp_path / "model.zip")
    for kwargs in (text_kwargs, {**few, "vocabulary": ["b"]}):
        env = make_sb3_vec_env("TextGen-v0", 4, env_kwargs=kwargs)
        with pytest.raises(ValueError, match="Action spaces do not match"):
            PPO.load(tmp_path / "model.zip", env=env)


@pytest.mark.parametrize("make", [make_vec_env, make_sb3_vec_env])
def test_environments_of_stable_baselines(few, make):
    env = make("TextGen-v0", 3, seed=0, env_kwargs=few)
    assert isinstance(env, DummyVecEnv) or make is make_sb3_vec_env
    assert env.action_space == Tokens(11, ALLOWED)
    env.reset()
    for _ in range(20):
        env.step(np.array([env.action_space.sample() for _ in range(3)]))
    with pytest.raises(ValueError, match="is none of the 4 that may be written"):
        env.step(np.array([2, 2, 1]))


def test_stable_baselines_check(few):
    check_env(gym.make("TextGen-v0", **few).unwrapped)


def test_texts_that_are_written_to_be_looked_at(make_ppo, few):
    policy = make_ppo().policy
    prompts = [{"prompt_index": i} for i in range(10)]
    for deterministic in (False, True):
        episodes = evaluate(policy, few, prompts, deterministic=deterministic)
        assert {letter for e in episodes for letter in e.text} <= set("bdg")
