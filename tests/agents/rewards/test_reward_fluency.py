"""Fluency: the mean log-probability of a text by a frozen model, read with a cache."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from agents.reader import CachedReader, UncachedReader
from agents.rewards.fluency import Fluency
from textgym import RewardError, dynamics
from textgym.checks import check_reward
from textgym.completion import Completions
from textgym.rewards import make
from textgym.tasks import Example
from textgym.tokenizer import Tokenizer


@pytest.fixture
def saved(make_model, byte_tokenizer, tmp_path):
    """A random model and its directory, with the byte tokenizer."""
    return _save(make_model(), byte_tokenizer, tmp_path / "lm")


def _save(model, tokenizer, directory):
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model, str(directory)


@torch.no_grad()
def mean_log_prob(model, prompt_ids, token_ids):
    """The definition, by one plain forward over the whole text."""
    ids = torch.tensor([[*prompt_ids, *token_ids]])
    log_probs = model(ids).logits[0, len(prompt_ids) - 1 : -1, : model.config.vocab_size]
    return log_probs.log_softmax(-1)[range(len(token_ids)), token_ids].mean().item()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rewards_add_up_to_the_mean_log_probability(saved, mode, tmp_path):
    model, directory = saved
    prompts = ["ab", "c", "a longer prompt", "你好"]
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(prompts * 3), encoding="utf-8")
    envs = gym.make_vec(
        "TextGen-v0",
        num_envs=5,
        autoreset_mode=mode,
        task={"name": "file", "path": str(path)},
        reward={"name": "fluency", "model": directory},
        tokenizer=directory,
        max_new_tokens=6,
    )
    generator = np.random.default_rng(0)
    observation, _ = envs.reset(seed=0)
    prompt_of = [_ids(observation, row) for row in range(5)]
    written, earned = [[] for _ in range(5)], np.zeros(5)
    over, finished = np.zeros(5, bool), 0
    for _ in range(40):
        actions = generator.integers(1, 257, 5)
        actions[generator.random(5) < 0.15] = 0
        beginning = over if mode == AutoresetMode.NEXT_STEP else np.zeros(5, bool)
        observation, rewards, terminated, truncated, _ = envs.step(actions)
        over = terminated | truncated
        for row in (~beginning).nonzero()[0]:
            written[row].append(int(actions[row]))
            earned[row] += rewards[row]
            expected = mean_log_prob(model, prompt_of[row], written[row])
            assert earned[row] == pytest.approx(expected, abs=1e-4)
        if mode == AutoresetMode.DISABLED and over.any():
            observation, _ = envs.reset(options={"reset_mask": over})
        begun = beginning if mode == AutoresetMode.NEXT_STEP else over
        for row in begun.nonzero()[0]:
            prompt_of[row], written[row], earned[row] = _ids(observation, row), [], 0.0
            finished += 1
    assert finished > 10


def _ids(observation, row):
    return observation["input_ids"][row][observation["attention_mask"][row] == 1].tolist()


class Play:
    """Rows that take tokens in any order, without an environment."""

    def __init__(self, tokenizer, num_rows=3, budget=12):
        self.tokenizer = tokenizer
        self.contexts = dynamics.empty(num_rows, 200, tokenizer.pad_token_id)
        self.completions = Completions(self.contexts, tokenizer, budget)
        self.earned = np.zeros(num_rows)

    def start(self, reward, row, prompt):
        rows = np.array([row])
        dynamics.begin(self.contexts, rows, [np.array(self.tokenizer.encode(prompt))])
        self.completions.begin(rows, [Example(prompt)])
        self.earned[row] = 0.0
        reward.start(rows, self.completions)

    def step(self, reward, rows, tokens):
        rows, tokens = np.array(rows), np.array(tokens)
        dynamics.append(self.contexts, rows, tokens)
        self.earned[rows] += reward.step(rows, tokens, self.completions)

    def check(self, model, row):
        prompt_ids = dynamics.prompt_ids(self.contexts, row).tolist()
        token_ids = self.completions.token_ids(row).tolist()
        assert self.earned[row] == pytest.approx(
            mean_log_prob(model, prompt_ids, token_ids), abs=1e-4
        )


def test_rows_left_out_begun_anew_and_given_longer_prompts(saved, byte_tokenizer):
    model, directory = saved
    reward, play = Fluency(directory), Play(byte_tokenizer)
    for row, prompt in enumerate(["one", "two and more", "x"]):
        play.start(reward, row, prompt)
    play.step(reward, [0, 1, 2], [5, 6, 7])
    play.step(reward, [1], [8])  # the others wait, in the middle of their texts
    play.step(reward, [0, 2], [9, 10])
    play.start(reward, 2, "again")  # the text before it was given up
    play.step(reward, [0, 1, 2], [11, 12, 13])
    play.start(reward, 0, "long " * 20)  # for which there is no room yet
    play.step(reward, [1, 2], [14, 15])
    play.step(reward, [0, 1, 2], [16, 17, 18])
    for row in range(3):
        play.check(model, row)


def test_a_row_may_wait_for_longer_than_a_text_is(saved, byte_tokenizer):
    model, directory = saved
    reward, play = Fluency(directory), Play(byte_tokenizer, num_rows=2)
    play.start(reward, 0, "a" * 52)  # with its budget all the room there is
    play.step(reward, [0], [3])
    for _ in range(8):
        play.start(reward, 1, "b" * 52)
        for token in range(12):
            play.step(reward, [1], [1 + token])
        play.check(model, 1)
    play.step(reward, [0, 1], [4, 5])
    play.check(model, 0)


@pytest.mark.parametrize("reader", [CachedReader, UncachedReader])
def test_rows_that_wait_are_not_read_anew_at_every_step(saved, byte_tokenizer, reader, monkeypatch):
    model, directory = saved
    monkeypatch.setattr("agents.rewards.frozen_lm.best_reader", lambda backbone: reader)
    begun = []

    def begin(self, rows, *prompts, begin=reader.begin):
        begun.append(rows.tolist())
        begin(self, rows, *prompts)

    monkeypatch.setattr(reader, "begin", begin)
    reward, play = Fluency(directory), Play(byte_tokenizer)
    for row, prompt in enumerate(["one", "a" * 52, "x"]):
        play.start(reward, row, prompt)
    play.step(reward, [0, 1, 2], [5, 6, 7])
    for token in range(11):
        play.step(reward, [1], [8 + token])  # up to the last place that there is
    play.step(reward, [2], [30])
    play.step(reward, [2], [31])
    # Row 2 caught up; row 1, which was full, made room once.
    assert begun == [[0, 1, 2], [2], [1]]
    play.step(reward, [0, 2], [32, 33])
    assert begun[3:] == [[0]]
    play.check(model, 0)
    play.check(model, 2)


def test_copies_go_on_and_are_light(saved, byte_tokenizer):
    model, directory = saved
    reward, play = Fluency(directory), Play(byte_tokenizer)
    for row in range(3):
        play.start(reward, row, "abc"[: row + 1])
    play.step(reward, [0, 1, 2], [5, 6, 7])
    pickled = pickle.dumps(reward)
    assert len(pickled) < 5_000
    play.step(pickle.loads(pickled), [0, 1, 2], [8, 9, 10])
    play.check(model, 1)
    twin = copy.deepcopy(reward)
    assert twin._lm is reward._lm
    assert Fluency(directory)._lm is reward._lm


@pytest.mark.filterwarnings("ignore:.*cannot be read with a cache")
def test_model_without_a_cache_of_ours(make_family, byte_tokenizer, tmp_path):
    model, directory = _save(make_family("rwkv", vocab_size=257), byte_tokenizer, tmp_path / "m")
    reward, play = Fluency(directory), Play(byte_tokenizer)
    for row, prompt in enumerate(["one", "two and more", "x"]):
        play.start(reward, row, prompt)
    play.step(reward, [0, 1, 2], [5, 6, 7])
    assert isinstance(reward._reader._reader, UncachedReader)
    play.step(reward, [1], [8])
    play.start(reward, 2, "again")
    play.step(reward, [0, 1, 2], [11, 12, 13])
    for row in range(3):
        play.check(model, row)


def test_wide_head_is_cut(make_llama, byte_tokenizer, tmp_path):
    model, directory = _save(make_llama(vocab_size=300), byte_tokenizer, tmp_path / "wide")
    reward, play = Fluency(directory), Play(byte_tokenizer, num_rows=1)
    play.start(reward, 0, "ab")
    play.step(reward, [0], [5])
    with torch.no_grad():
        logits = model(torch.tensor([byte_tokenizer.encode("ab")])).logits[0, -1, :257]
    assert play.earned[0] == pytest.approx(logits.log_softmax(-1)[5].item(), abs=1e-5)


def test_another_tokenizer_is_refused(saved, byte_tokenizer, tiny_tokenizer_dir):
    _, directory = saved
    env = gym.make(
        "TextGen-v0",
        task={"name": "target_token"},
        reward={"name": "fluency", "model": directory},
        tokenizer="builtin",
    )
    with pytest.raises(RewardError, match=r"another tokenizer.*tokenizer='.*lm'"):
        env.reset()
    letters = Play(Tokenizer.from_pretrained(tiny_tokenizer_dir))
    with pytest.raises(RewardError, match="another tokenizer"):
        letters.start(Fluency(directory), 0, "a")
    same = Play(copy.deepcopy(byte_tokenizer))  # another object, the same tokens
    same.start(Fluency(directory), 0, "a")


def test_prompt_too_long_for_the_model(saved, byte_tokenizer):
    reward, play = Fluency(saved[1]), Play(byte_tokenizer, budget=200)
    play.start(reward, 0, "a" * 56)
    with pytest.raises(RewardError, match=r"reads 256 tokens, and the prompt.* are 257"):
        play.start(reward, 1, "a" * 57)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "/nowhere"}, FileNotFoundError, "no model '/nowhere'"),
        ({"device": "gpu9"}, ValueError, "^fluency: device 'gpu9' cannot be used here"),
        ({"dtype": "int4"}, ValueError, "^fluency: dtype is one of .*, got 'int4'"),
    ],
)
def test_bad_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        Fluency(**arguments)


def test_keeps_the_contract(saved):
    check_reward({"name": "fluency", "model": saved[1]}, tokenizer=saved[1])


def test_builtin_model_prefers_english():
    reward = make("fluency")
    tokenizer = Tokenizer.from_pretrained("builtin")
    play = Play(tokenizer, num_rows=2)
    for row, text in enumerate([" the king of France", " xq zvv kpt jj"]):
        play.start(reward, row, "My lord, I saw")
        for token in tokenizer.encode_plain(text)[:12]:
            play.step(reward, [row], [token])
    assert play.earned[0] > play.earned[1] + 2
    assert play.earned.max() < 0


def test_bfloat16_is_near(saved, byte_tokenizer):
    model, directory = saved
    reward, play = Fluency(directory, dtype="bfloat16"), Play(byte_tokenizer)
    play.start(reward, 0, "abc")
    for token in (5, 6, 7):
        play.step(reward, [0], [token])
    prompt_ids = byte_tokenizer.encode("abc")
    assert play.earned[0] == pytest.approx(mean_log_prob(model, prompt_ids, [5, 6, 7]), abs=0.2)
