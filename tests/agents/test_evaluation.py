"""Held-out prompts are continued once each, and training does not notice."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from agents import TransformerPolicy
from agents.evaluation import evaluate, mean_score

gym.register_envs(textgym)

END = 0
TEXTS = ["abcde", "a", "jihg", "dad", "a", "b", "cab", "ab"]
PROMPTS = [{"prompt": text, "reference": text[::-1]} for text in TEXTS]


@pytest.fixture
def policy(make_model, text_kwargs, shake):
    env = gym.make("TextGen-v0", **text_kwargs)
    spaces = env.observation_space, env.action_space
    policy = TransformerPolicy(*spaces, lambda _: 1e-3, model=make_model(vocab_size=11))
    return shake(policy)


def test_every_prompt_has_its_episode(policy, text_kwargs):
    episodes = evaluate(policy, text_kwargs, PROMPTS)
    assert [episode.prompt for episode in episodes] == TEXTS
    env = gym.make("TextGen-v0", **text_kwargs)
    for options, episode in zip(PROMPTS, episodes, strict=True):
        env.reset(options=options)
        for step, (token, reward) in enumerate(
            zip(episode.token_ids, episode.rewards, strict=True), start=1
        ):
            _, paid, terminated, truncated, info = env.step(token)
            assert paid == pytest.approx(reward, abs=1e-6)
            assert (terminated or truncated) == (step == len(episode.token_ids))
        assert info["text"] == episode.text
        assert episode.scores == pytest.approx(info["scores"])
    assert mean_score(episodes) == pytest.approx(np.mean([sum(e.rewards) for e in episodes]))


def test_texts_end_when_they_like(policy, text_kwargs):
    texts = [episode.token_ids for episode in evaluate(policy, text_kwargs, 6 * PROMPTS)]
    assert len({len(text) for text in texts}) > 2
    for text in texts:
        assert END not in text[:-1]
        assert (text[-1] == END) or len(text) == 6


def test_the_seed_decides(policy, text_kwargs):
    runs = [evaluate(policy, text_kwargs, PROMPTS, seed=seed) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert [e.token_ids for e in runs[0]] != [e.token_ids for e in runs[2]]


@pytest.mark.parametrize("seed", range(3))
def test_the_likeliest_is_what_stock_predict_takes(policy, text_kwargs, shake, seed):
    shake(policy, seed + 1)
    episodes = evaluate(policy, text_kwargs, PROMPTS, seed=seed, deterministic=True)
    env = gym.make("TextGen-v0", **text_kwargs)
    for options, episode in zip(PROMPTS, episodes, strict=True):
        observation, _ = env.reset(options=options)
        tokens, done = [], False
        while not done:
            token, _ = policy.predict(observation, deterministic=True)
            tokens.append(int(token))
            observation, _, terminated, truncated, _ = env.step(token)
            done = terminated or truncated
        assert episode.token_ids == tokens


@pytest.mark.parametrize("deterministic", [False, True])
def test_random_numbers_of_training_are_left_alone(policy, text_kwargs, deterministic):
    before = torch.random.get_rng_state(), np.random.get_state()
    evaluate(policy, text_kwargs, PROMPTS, seed=5, deterministic=deterministic)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[2] == before[1][2]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][1])
