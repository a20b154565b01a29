"""Held-out prompts are continued once each, and training does not notice."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from agents import TransformerPolicy, make_sb3_vec_env
from agents.evaluation import evaluate, mean_score, write
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

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


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_portions_change_nothing_but_the_draws(policy, text_kwargs, rows):
    expected = evaluate(policy, text_kwargs, PROMPTS, deterministic=True)
    env = make_sb3_vec_env("TextGen-v0", rows, env_kwargs=text_kwargs)
    for _ in range(2):  # an environment serves more than once
        written = write(policy, env, PROMPTS, deterministic=True)
        for each, episode in zip(written, expected, strict=True):
            assert each.episode.token_ids == episode.token_ids
            assert each.episode.prompt == episode.prompt
            assert each.episode.rewards == pytest.approx(episode.rewards)
    drawn = [write(policy, env, PROMPTS, seed=2) for _ in range(2)]
    texts = [[each.episode.token_ids for each in written] for written in drawn]
    assert texts[0] == texts[1]


def test_what_stood_before_a_text_is_known(policy, text_kwargs, tiny_tokenizer_dir):
    tokenizer = Tokenizer.from_pretrained(tiny_tokenizer_dir)
    env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=text_kwargs)
    for each, text in zip(write(policy, env, PROMPTS), TEXTS, strict=True):
        ((begin, context),) = each.contexts
        assert begin == 0
        assert context.tolist() == tokenizer.encode(text)


def test_texts_that_were_cut_are_marked(policy, text_kwargs):
    for episode in evaluate(policy, text_kwargs, 4 * PROMPTS):
        assert episode.truncated == (END not in episode.token_ids)
    terminal = {**text_kwargs, "budget_is_terminal": True}
    assert not any(episode.truncated for episode in evaluate(policy, terminal, PROMPTS))


def test_success_is_told(policy, text_kwargs):
    found = {"name": "contains", "answer": "a", "whole_words": False}
    episodes = evaluate(policy, {**text_kwargs, "reward": found}, 6 * PROMPTS)
    assert {episode.success for episode in episodes} == {True, False}
    for episode in episodes:
        assert episode.success == ("a" in episode.text)
    nothing = {"name": "length", "target": 4}
    (episode,) = evaluate(policy, {**text_kwargs, "reward": nothing}, PROMPTS[:1])
    assert episode.success is None


def test_every_portion_is_paid_alike(policy, text_kwargs):
    rewards = {"edit_distance": 1.0, "length": {"target": 4}}
    adaptive = {"name": "adaptive", "rewards": rewards, "goals": {"length": -9.0}, "window": 2}
    env = make_sb3_vec_env("TextGen-v0", 2, env_kwargs={**text_kwargs, "reward": adaptive})
    weights = env.env_method("reward_weights", indices=[0])
    alone = write(policy, env, PROMPTS[:2], deterministic=True)
    assert env.env_method("reward_weights", indices=[0]) != weights
    env = make_sb3_vec_env("TextGen-v0", 2, env_kwargs={**text_kwargs, "reward": adaptive})
    late = write(policy, env, [*PROMPTS, *PROMPTS[:2]], deterministic=True)[-2:]
    assert [e.episode.rewards for e in late] == [e.episode.rewards for e in alone]


class Echo:
    """Repeats what was said, once."""

    max_turns = 2
    longest_reply = "aaaaaa"

    def reply(self, example, turns):
        return turns[-1] or "a" if len(turns) == 1 else None


def test_answers_are_told_from_what_was_written(policy, text_kwargs):
    examples = tuple(Example(text) for text in TEXTS)
    task = Task("echo", {"test": examples}, interaction=Echo(), stop=("b",))
    kwargs = {**text_kwargs, "task": task, "split": "test", "reward": "length"}
    env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=kwargs)
    spaces = env.observation_space, env.action_space
    policy = TransformerPolicy(*spaces, lambda _: 1e-3, model=policy.backbone.model)
    written = write(policy, env, [{"prompt_index": i % 8} for i in range(40)], seed=1)
    answered = [each for each in written if each.episode.replies]
    assert answered
    for each in answered:
        (first, prompt), (second, longer) = each.contexts
        ((place, _),) = each.episode.replies
        assert (first, second) == (0, place)
        before = [*prompt, *each.episode.token_ids[:place]]
        assert longer[: len(before)].tolist() == before
        assert len(longer) > len(before)
    assert all(len(each.contexts) == 1 for each in written if not each.episode.replies)


@pytest.mark.parametrize("family", ["bloom", "mamba", "llama"])
def test_more_prompts_than_rows(make_family, family, text_kwargs):
    """Rows begin anew, are left out, and at last there are fewer prompts than rows."""
    model = make_family(family, vocab_size=11)
    env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=text_kwargs)
    policy = TransformerPolicy(env.observation_space, env.action_space, lambda _: 0.0, model=model)
    prompts = [{"prompt_index": index} for index in range(4)]
    written = write(policy, env, prompts, deterministic=True)
    each = [evaluate(policy, text_kwargs, [prompt], deterministic=True)[0] for prompt in prompts]
    assert [w.episode.token_ids for w in written] == [episode.token_ids for episode in each]
