"""Texts that are stored once come back as the windows that SB3 stores."""

import copy
import pickle
import string

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

import textgym
from agents import TransformerQPolicy, make_sb3_vec_env
from agents.replay import TokenReplayBuffer

gym.register_envs(textgym)

CAPACITY, PADDING = 12, 7
SPACES = (
    spaces.Dict(
        {
            "input_ids": spaces.Box(0, 10, (CAPACITY,), np.int64),
            "attention_mask": spaces.Box(0, 1, (CAPACITY,), np.int8),
        }
    ),
    spaces.Discrete(11),
)


def observed(texts):
    ids = np.full((len(texts), CAPACITY), PADDING, np.int64)
    mask = np.zeros((len(texts), CAPACITY), np.int8)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def transitions(n_envs, count, seed):
    """Texts that grow by a token, are answered, are written anew, lose their end, end, are cut."""
    rng = np.random.default_rng(seed)

    def some(most):
        return rng.integers(3, size=rng.integers(1, most + 1)).tolist()  # often the same ones

    texts = [some(4) for _ in range(n_envs)]
    for _ in range(count):
        obs, actions = observed(texts), rng.integers(11, size=n_envs)
        grown = []
        for text, action in zip(texts, actions.tolist(), strict=True):
            other = [[*text, *some(3)], some(4), text[:-1] or [1], text]
            kind = rng.integers(12)
            grown.append((other[kind] if kind < len(other) else [*text, action])[:CAPACITY])
        dones = rng.random(n_envs) < 0.2
        dones |= [len(text) == CAPACITY for text in grown]
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones]
        yield obs, observed(grown), actions, rng.normal(size=n_envs), dones, infos
        texts = [some(4) if done else text for done, text in zip(dones, grown, strict=True)]


def filled(buffer_class, n_envs=3, count=50, size=60, seed=0, **settings):
    buffer = buffer_class(size, *SPACES, device="cpu", n_envs=n_envs, **settings)
    for step in transitions(n_envs, count, seed):
        buffer.add(*copy.deepcopy(step))
    return buffer


def sampled(buffer, batch_size=64, env=None):
    np.random.seed(0)
    return buffer.sample(batch_size, env)


def same(ours, stock):
    for a, b in zip(ours, stock, strict=True):
        if isinstance(a, dict):
            assert list(a) == list(b)
            same(a.values(), b.values())
        elif a is not b:
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize("handle_timeout_termination", [True, False])
@pytest.mark.parametrize("count", [1, 13, 20, 29, 90], ids=lambda count: f"{count} steps")
@pytest.mark.parametrize("n_envs", [1, 3])
def test_samples_are_those_of_sb3s_buffer(n_envs, count, handle_timeout_termination):
    for seed in range(10):
        settings = {"handle_timeout_termination": handle_timeout_termination, "seed": seed}
        ours, stock = (
            filled(buffer_class, n_envs, count, 20 * n_envs, **settings)
            for buffer_class in (TokenReplayBuffer, DictReplayBuffer)
        )
        assert (ours.size(), ours.pos, ours.full) == (stock.size(), stock.pos, stock.full)
        same(sampled(ours), sampled(stock))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_envs=st.integers(1, 3),
    count=st.integers(1, 40),
    room=st.integers(1, 25),
)
def test_any_texts_come_back_as_sb3_stores_them(seed, n_envs, count, room):
    """Whenever the buffer wraps around, and in the middle of whichever text."""
    settings_ = {"n_envs": n_envs, "count": count, "size": room * n_envs, "seed": seed}
    ours, stock = (filled(kind, **settings_) for kind in (TokenReplayBuffer, DictReplayBuffer))
    assert (ours.size(), ours.pos, ours.full) == (stock.size(), stock.pos, stock.full)
    same(sampled(ours), sampled(stock))


GAME = {
    "task": {"name": "game", "num_games": 30},
    "reward": {"letters": lambda turns: float(sum(map(len, turns)))},
    "stop": list(string.ascii_letters),
    "max_new_tokens": 12,
}


@pytest.mark.parametrize("environment", ["vector", "single", "game", "normalised"])
def test_stock_dqn_learns_the_same_from_either_buffer(
    environment, make_llama, text_kwargs, byte_tokenizer_dir
):
    env_kwargs = text_kwargs
    if environment == "game":
        env_kwargs = {**GAME, "tokenizer": byte_tokenizer_dir}
    learned = []
    for buffer_class in (TokenReplayBuffer, None):
        env = make_sb3_vec_env("TextGen-v0", 4, seed=0, env_kwargs=env_kwargs)
        if environment == "single":
            env = gym.make("TextGen-v0", **env_kwargs)
        if environment == "normalised":
            env = VecNormalize(env, norm_obs=False, norm_reward=True)
        torch.manual_seed(0)
        dqn = DQN(
            TransformerQPolicy,
            env,
            policy_kwargs={
                "model": make_llama(
                    vocab_size=257 if environment == "game" else 11, max_position_embeddings=512
                )
            },
            replay_buffer_class=buffer_class,
            buffer_size=100,
            learning_starts=8,
            target_update_interval=16,
            seed=0,
        ).learn(160)
        learned.append(dqn)
    ours, stock = (dqn.policy.state_dict() for dqn in learned)
    assert all(torch.equal(ours[key], stock[key]) for key in stock)
    same(*(sampled(dqn.replay_buffer, env=dqn.get_vec_normalize_env()) for dqn in learned))


def test_texts_are_read_where_windows_end():
    buffer = filled(TokenReplayBuffer)
    np.random.seed(0)
    steps = buffer.draw(40, sequence_length=8)
    windows, texts = buffer.observed(*steps), buffer.texts(*steps)
    same(
        (windows.actions, windows.rewards, windows.dones),
        (texts.actions, texts.rewards, texts.dones),
    )
    for places, window in (
        (texts.before, windows.observations),
        (texts.after, windows.next_observations),
    ):
        for i, (text, end) in enumerate(places.T.tolist()):
            length = int(window["attention_mask"][i].sum())
            assert end == length - 1
            read = texts.input_ids[text, :length]
            assert torch.equal(read, window["input_ids"][i, :length])
    assert len(texts.input_ids) < 40 * 2 / 3


def test_every_step_is_drawn_as_often():
    buffer = filled(TokenReplayBuffer, n_envs=2, count=7, size=20)
    np.random.seed(0)
    steps, rows = buffer.draw(80_000, sequence_length=4)
    drawn = np.zeros((7, 2))
    np.add.at(drawn, (steps, rows), 1)
    np.testing.assert_allclose(drawn / drawn.sum(), 1 / 14, atol=0.004)
    runs = steps.reshape(-1, 4)
    assert ((runs[:, 1:] - runs[:, :-1]) % 7 == 1).all()
    assert (rows.reshape(-1, 4) == rows[::4, None]).all()


def test_a_text_is_stored_once_and_forgotten_with_its_last_step():
    def sizes(buffer_class):
        buffer = buffer_class(10_000, *SPACES, n_envs=2)
        texts = iter(range(3, 12))
        for _ in range(5_000):  # 9 tokens are written, and the prompt is 3
            length = next(texts, None)
            if length is None:
                texts = iter(range(4, 12))
                length = 3
            before, after = observed([[1] * length] * 2), observed([[1] * (length + 1)] * 2)
            ended = np.full(2, length == 11)
            buffer.add(before, after, np.ones(2), np.ones(2), ended, [{}, {}])
        return len(pickle.dumps(buffer))

    assert sizes(TokenReplayBuffer) < 0.35 * sizes(DictReplayBuffer)  # of a window of 12
    buffer = filled(TokenReplayBuffer, n_envs=1, count=500, size=10)
    kept = {id(text): text for text in buffer._texts.flat}
    assert len(kept) < 20
    stored = [text.ids for text in kept.values() if text is not buffer._open[0]]
    assert all(len(ids) <= CAPACITY and ids.base is None for ids in stored)


def test_a_buffer_is_saved_and_goes_on(text_kwargs, make_llama, tmp_path):
    def make():
        env = make_sb3_vec_env("TextGen-v0", 4, seed=0, env_kwargs=text_kwargs)
        model = make_llama(vocab_size=11)
        buffer = {"replay_buffer_class": TokenReplayBuffer, "buffer_size": 400}
        return DQN(TransformerQPolicy, env, policy_kwargs={"model": model}, seed=0, **buffer)

    first, second = make().learn(120), make()
    first.save_replay_buffer(tmp_path / "buffer.pkl")
    second.load_replay_buffer(tmp_path / "buffer.pkl")
    same(sampled(second.replay_buffer), sampled(first.replay_buffer))
    second.learn(120)
    assert second.replay_buffer.size() == 2 * first.replay_buffer.size()


def test_texts_that_are_not_finished_grow_on_after_loading():
    buffers = [
        filled(buffer_class, count=0) for buffer_class in (TokenReplayBuffer, DictReplayBuffer)
    ]
    for count, step in enumerate(transitions(3, 30, 0)):
        if count % 4 == 0:
            buffers = pickle.loads(pickle.dumps(buffers))
        for buffer in buffers:
            buffer.add(*copy.deepcopy(step))
        same(*map(sampled, buffers))


def test_an_emptied_buffer_holds_no_text():
    buffer = filled(TokenReplayBuffer)
    buffer.reset()
    assert buffer.size() == 0
    assert not any(buffer._texts.flat)
    for step in transitions(3, 5, 1):
        buffer.add(*step)
    again = filled(TokenReplayBuffer, count=5, seed=1)
    same(sampled(buffer), sampled(again))


def test_what_cannot_be_stored_is_refused():
    other = spaces.Dict({**SPACES[0].spaces, "picture": spaces.Box(0, 1, (2,))})
    with pytest.raises(ValueError, match=r"expects an observation space Dict.*and no more"):
        TokenReplayBuffer(10, other, SPACES[1])
    with pytest.raises(ValueError, match="optimize_memory_usage is for SB3's own"):
        TokenReplayBuffer(10, *SPACES, optimize_memory_usage=True)
    step = next(transitions(1, 1, 0))
    buffer = TokenReplayBuffer(10, *SPACES)
    step[1]["attention_mask"][0] = np.roll(step[1]["attention_mask"][0], 1)
    with pytest.raises(ValueError, match="padded on the right"):
        buffer.add(*step)
