from __future__ import annotations

import copy
import json
import pickle
import re
import string
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.utils.env_match import check_environments_match
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import RewardError, TextGenEnv
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

EOS = 0
LETTERS = {letter: 1 + i for i, letter in enumerate("abcdefghij")}
IDS = ["TextGen-v0", "textgym/TextGen-v0", "textgym:TextGen-v0"]

MakeEnv = Callable[..., gym.Env[Any, Any]]


@pytest.fixture
def make_env(tiny_tokenizer_dir: str, prompts_file: str) -> MakeEnv:
    """Makes environments with ten letters for tokens, a budget of 8 and four prompts."""

    def make(**kwargs: Any) -> gym.Env[Any, Any]:
        defaults = {
            "tokenizer": tiny_tokenizer_dir,
            "task": {
                "name": "file",
                "path": prompts_file,
                "validation": prompts_file,
                "test_fraction": 0,
            },
            "reward": "length",
            "max_new_tokens": 8,
        }
        return gym.make("TextGen-v0", **{**defaults, **kwargs})

    return make


def _write(env: gym.Env[Any, Any], text: str) -> list[tuple[Any, ...]]:
    """Take the steps that write these letters; "." ends the text."""
    return [env.step(EOS if letter == "." else LETTERS[letter]) for letter in text]


def _rewards(steps: list[tuple[Any, ...]]) -> list[float]:
    return [step[1] for step in steps]


class TestMake:
    @pytest.mark.parametrize("env_id", IDS)
    def test_no_argument_is_needed(self, env_id: str) -> None:
        env = gym.make(env_id)
        assert isinstance(env.unwrapped, TextGenEnv)
        observation, info = env.reset(seed=0)
        assert observation in env.observation_space
        assert info["prompt"]
        total = 0.0
        while True:
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            total += reward
            if terminated or truncated:
                break
        assert total == pytest.approx(info["scores"]["sentiment"])

    def test_spec_round_trip(self, make_env: MakeEnv) -> None:
        env = make_env(
            reward={"length": 0.5, "words": {"name": "keywords", "words": ["ab"], "weight": 2.0}},
            timing="delayed",
            every="word",
            stop=["ab"],
            context_length=20,
            budget_is_terminal=True,
            prompt_truncation="left",
            split="validation",
        )
        text = env.spec.to_json()
        json.loads(text)
        again = gym.make(gym.envs.registration.EnvSpec.from_json(text))
        check_environments_match(env, again, num_steps=100)

    @pytest.mark.parametrize(
        "reward", [lambda text: len(text) / 8, "length", {"name": "length"}, {"length": 1.0}]
    )
    def test_reward_of_every_kind(self, make_env: MakeEnv, reward: Any) -> None:
        env = make_env(reward=reward)
        env.reset(seed=0)
        assert _rewards(_write(env, "ab.")) == [0.125, 0.125, 0.0]

    def test_objects_instead_of_names(self, byte_tokenizer: Tokenizer) -> None:
        task = Task("mine", {"train": [Example("你好")]})
        env = gym.make("TextGen-v0", task=task, tokenizer=byte_tokenizer, reward="length")
        assert env.reset(seed=0)[1] == {"prompt": "你好"}
        assert env.unwrapped.tokenizer is byte_tokenizer

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({"max_new_tokens": 0}, ValueError, "max_new_tokens is a whole number of at least 1"),
            ({"max_new_tokens": 2.0}, ValueError, "got 2.0"),
            ({"max_new_tokens": True}, ValueError, "got True"),
            ({"stop": "."}, TypeError, r"stop is a list of non-empty strings"),
            ({"stop": [""]}, TypeError, r"got \[''\]"),
            ({"prompt_truncation": "right"}, ValueError, "'error' or 'left', got 'right'"),
            ({"context_length": 8}, ValueError, "leaves no room for a prompt"),
            ({"context_length": 10}, ValueError, r"has 3 tokens, and there is room for 2 .*=11 or"),
            ({"split": "test"}, ValueError, "no examples in split 'test'"),
            ({"render_mode": "html"}, TypeError, "render_mode is one of"),
            ({"timing": "late"}, ValueError, "timing is one of"),
            ({"reward": "lenght"}, ValueError, "did you mean 'length'"),
            ({"tokenizer": "no/such/place"}, FileNotFoundError, "neither one that goes by name"),
        ],
    )
    def test_what_is_refused(
        self,
        tiny_tokenizer_dir: str,
        prompts_file: str,
        kwargs: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        task = {"name": "file", "path": prompts_file, "test_fraction": 0}
        defaults = {"tokenizer": tiny_tokenizer_dir, "task": task, "max_new_tokens": 8}
        with pytest.raises(error, match=message):
            TextGenEnv(**{**defaults, **kwargs})

    def test_an_empty_prompt_is_refused(self, byte_tokenizer: Tokenizer) -> None:
        with pytest.raises(ValueError, match="prompt 0 of split 'train' has no tokens"):
            TextGenEnv(task=Task("mine", {"train": [Example("")]}), tokenizer=byte_tokenizer)


class TestSpaces:
    def test_length_holds_the_longest_prompt_of_any_split(self, byte_tokenizer: Tokenizer) -> None:
        task = Task("mine", {"train": [Example("ab")], "test": [Example("abcdef")]})
        spaces = [
            TextGenEnv(task=task, split=split, tokenizer=byte_tokenizer).observation_space
            for split in ("train", "test")
        ]
        assert spaces[0] == spaces[1]
        assert spaces[0]["input_ids"].shape == (6 + 32,)

    def test_dtypes_and_bounds(self, make_env: MakeEnv) -> None:
        env = make_env()
        assert env.action_space == gym.spaces.Discrete(11)
        assert env.observation_space == gym.spaces.Dict(
            input_ids=gym.spaces.Box(0, 10, (11,), np.int64),
            attention_mask=gym.spaces.Box(0, 1, (11,), np.int8),
        )

    def test_observation_is_prompt_and_completion_padded_on_the_right(
        self, make_env: MakeEnv
    ) -> None:
        env = make_env()
        observation, _ = env.reset(options={"prompt": "ab"})
        written = [1, 2]
        for letter in "cdefg":
            padding = [EOS] * (11 - len(written))
            assert observation["input_ids"].tolist() == written + padding
            assert observation["attention_mask"].tolist() == [1] * len(written) + [0] * len(padding)
            observation, *_ = env.step(LETTERS[letter])
            written.append(LETTERS[letter])

    def test_nothing_returned_is_used_again(self, make_env: MakeEnv) -> None:
        env = make_env()
        returned = [env.reset(seed=0), *_write(env, "abc")]
        copies = copy.deepcopy(returned)
        _write(env, "defgh")
        env.reset()
        assert data_equivalence(returned, copies)


class TestEnding:
    def test_end_of_text_terminates(self, make_env: MakeEnv) -> None:
        env = make_env()
        env.reset()
        assert [step[2:4] for step in _write(env, "ab.")] == [(False, False)] * 2 + [(True, False)]

    def test_budget_truncates(self, make_env: MakeEnv) -> None:
        env = make_env()
        env.reset()
        steps = _write(env, "abcdefgh")
        assert [step[2:4] for step in steps] == [(False, False)] * 7 + [(False, True)]

    def test_budget_may_terminate(self, make_env: MakeEnv) -> None:
        env = make_env(budget_is_terminal=True)
        env.reset()
        assert _write(env, "abcdefgh")[-1][2:4] == (True, False)

    def test_end_of_text_as_the_last_token_is_no_truncation(self, make_env: MakeEnv) -> None:
        env = make_env()
        env.reset()
        assert _write(env, "abcdefg.")[-1][2:4] == (True, False)

    def test_stop_string_terminates_when_it_is_whole(self, make_env: MakeEnv) -> None:
        env = make_env(stop=["ja", "cab"])
        env.reset(options={"prompt": "hc"})  # a stop string does not begin in the prompt
        steps = _write(env, "abcca" + "b")
        assert [step[2] for step in steps] == [False] * 5 + [True]
        assert steps[-1][4]["text"] == "abccab"

    def test_a_stop_string_of_several_bytes(self, byte_tokenizer: Tokenizer) -> None:
        env = TextGenEnv(tokenizer=byte_tokenizer, reward="length", stop=["。"])
        env.reset()
        steps = [env.step(1 + byte) for byte in "好。".encode()]
        assert [step[2] for step in steps] == [False] * 5 + [True]

    def test_time_limit_cuts_from_outside(self, make_env: MakeEnv) -> None:
        env = make_env(max_episode_steps=3)
        env.reset()
        assert [step[3] for step in _write(env, "abc")] == [False, False, True]

    @pytest.mark.parametrize("last", [EOS, None])
    def test_an_ended_episode_takes_no_step(self, make_env: MakeEnv, last: int | None) -> None:
        env = make_env(max_new_tokens=1)
        env.reset()
        env.step(EOS if last is EOS else 1)
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            env.step(1)
        env.reset()
        env.step(1)

    def test_no_step_before_the_first_reset(self, make_env: MakeEnv) -> None:
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            make_env().unwrapped.step(1)


class TestRewards:
    @pytest.mark.parametrize("text", ["abcdabcd", "ab.", ".", "aaaaaaa."])
    def test_immediate_and_delayed_add_up_to_the_same_score(
        self, make_env: MakeEnv, text: str
    ) -> None:
        def score(text: str) -> float:
            return 1.0 + text.count("a") - 0.25 * text.count("c")

        totals = []
        for timing in ("immediate", "delayed"):
            env = make_env(reward=score, timing=timing)
            env.reset()
            steps = _write(env, text)
            rewards = _rewards(steps)
            assert timing == "immediate" or not any(rewards[:-1])
            assert sum(rewards) == steps[-1][4]["scores"]["score"]
            totals.append(sum(rewards))
        assert totals == [score(text.rstrip("."))] * 2

    def test_components_are_weighted_and_scores_are_not(self, make_env: MakeEnv) -> None:
        env = make_env(reward={"length": 0.5, "keywords": {"words": ["ab"], "weight": -2.0}})
        env.reset()
        steps = _write(env, "ab.")
        assert [step[4]["reward_components"] for step in steps] == [
            {"length": 0.0625, "keywords": 0.0},
            {"length": 0.0625, "keywords": -2.0},
            {"length": 0.0, "keywords": 0.0},
        ]
        assert _rewards(steps) == [0.0625, -1.9375, 0.0]
        assert steps[-1][4]["scores"] == {"length": 0.25, "keywords": 1.0}

    def test_only_a_text_that_changed_is_scored(self, byte_tokenizer: Tokenizer) -> None:
        scored: list[str] = []

        def score(text: str) -> float:
            scored.append(text)
            return float(len(text))

        env = TextGenEnv(tokenizer=byte_tokenizer, reward=score)
        env.reset()
        for byte in "a中b".encode():
            env.step(1 + byte)
        env.step(EOS)
        assert scored == ["a", "a中", "a中b"]

    def test_a_reward_that_fails_says_where(self, make_env: MakeEnv) -> None:
        def unstable(text: str) -> float:
            return 1.0 / (len(text) - 2)

        env = make_env(reward=unstable)
        env.reset(options={"prompt": "hj"})
        with pytest.raises(RewardError, match=r"(?s)'unstable' raised ZeroDiv.*'hj'.*'ab'"):
            _write(env, "ab")

    def test_references_and_columns_reach_the_reward(self, make_env: MakeEnv) -> None:
        seen = []

        def score(prompt: str, reference: str, level: int) -> float:
            seen.append((prompt, reference, level))
            return 0.0

        env = make_env(reward=score)
        for index in range(4):
            env.reset(options={"prompt_index": index})
            _write(env, "a")
        assert seen == [("ab", "cd", 1), ("abc", "dab", 2), ("h", "hhhh", 3), ("fgh", "a", 4)]


class TestInfo:
    def test_what_is_told_when(self, make_env: MakeEnv) -> None:
        env = make_env(reward={"name": "edit_distance"})
        _, info = env.reset(options={"prompt_index": 0})
        assert info == {"prompt": "ab"}
        steps = _write(env, "cd.")
        components = [{"reward_components": {"edit_distance": x}} for x in (0.5, 0.5, 0.0)]
        assert [step[4] for step in steps[:2]] == components[:2]
        assert steps[2][4] == {
            **components[2],
            "prompt": "ab",
            "text": "cd",
            "score": 1.0,
            "scores": {"edit_distance": 1.0},
            "is_success": True,
        }

    def test_values_are_plain_python(self, make_env: MakeEnv) -> None:
        env = make_env(reward="edit_distance")
        env.reset()
        step = _write(env, "ab.")[-1]
        assert [type(value) for value in step[1:4]] == [float, bool, bool]
        assert type(step[4]["is_success"]) is bool
        assert type(step[4]["scores"]["edit_distance"]) is float
        assert type(step[4]["reward_components"]["edit_distance"]) is float
        json.dumps(step[4])

    def test_no_success_without_a_threshold(self, make_env: MakeEnv) -> None:
        env = make_env(reward="length")
        env.reset()
        assert "is_success" not in _write(env, ".")[-1][4]

    @given(data=st.binary(max_size=12), ends=st.booleans())
    def test_text_is_what_the_tokens_decode_to(
        self, byte_tokenizer: Tokenizer, data: bytes, ends: bool
    ) -> None:
        env = TextGenEnv(
            task="target_token",
            tokenizer=byte_tokenizer,
            reward=len,
            max_new_tokens=len(data) + ends or 1,
        )
        env.reset(seed=0)
        ids = [1 + byte for byte in data] + [EOS] * (ends or not data)
        *_, (_, _, terminated, truncated, info) = [env.step(i) for i in ids]
        assert terminated or truncated
        assert info["text"] == data.decode("utf-8", "replace")
        assert info["scores"]["len"] == len(info["text"])


class TestSeeding:
    def test_same_seed_same_prompts(self, make_env: MakeEnv) -> None:
        def prompts(env: gym.Env[Any, Any], seed: int) -> list[str]:
            first = env.reset(seed=seed)[1]["prompt"]
            return [first, *(env.reset()[1]["prompt"] for _ in range(20))]

        one, other = make_env(), make_env()
        assert prompts(one, 1) == prompts(other, 1) == prompts(other, 1)
        assert prompts(one, 1) != prompts(one, 2)

    def test_every_prompt_is_as_likely(self, make_env: MakeEnv) -> None:
        env = make_env()
        env.reset(seed=0)
        drawn = [env.reset()[1]["prompt"] for _ in range(2000)]
        counts = [drawn.count(prompt) for prompt in ("ab", "abc", "h", "fgh")]
        assert sum(counts) == 2000
        # 5 standard deviations of a binomial with p = 1/4.
        assert all(abs(count - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for count in counts)

    def test_a_chosen_prompt_leaves_the_random_stream_as_it_is(self, make_env: MakeEnv) -> None:
        one, other = make_env(), make_env()
        one.reset(seed=3)
        other.reset(seed=3, options={"prompt": "j"})
        for _ in range(5):
            assert one.reset()[1] == other.reset()[1]


class TestOptions:
    def test_prompt(self, make_env: MakeEnv) -> None:
        env = make_env(reward="edit_distance")
        options = {"prompt": "jj", "reference": "ab"}
        observation, info = env.reset(options=options)
        assert info == {"prompt": "jj"}
        assert observation["input_ids"].tolist()[:3] == [10, 10, EOS]
        assert _write(env, "ab.")[-1][4]["is_success"]
        assert options == {"prompt": "jj", "reference": "ab"}

    @pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2], np.int32)])
    def test_prompt_ids(self, make_env: MakeEnv, ids: Any) -> None:
        env = make_env()
        observation, info = env.reset(options={"prompt_ids": ids})
        assert info == {"prompt": "ab"}
        assert observation["input_ids"].tolist()[:3] == [1, 2, EOS]

    def test_prompt_index(self, make_env: MakeEnv) -> None:
        env = make_env()
        prompts = [env.reset(options={"prompt_index": i})[1]["prompt"] for i in range(4)]
        assert prompts == ["ab", "abc", "h", "fgh"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"promt": "a"}, r"unknown reset option 'promt'; did you mean 'prompt'"),
            ({"prompt": "a", "prompt_index": 0}, "exactly one of"),
            ({"reference": "a"}, "exactly one of"),
            ({"prompt_index": 4}, "from 0 to 3"),
            ({"prompt_index": -1}, "from 0 to 3"),
            ({"prompt_index": 1.0}, "got 1.0"),
            ({"prompt_index": 0, "reference": "a"}, "brings its own reference"),
            ({"prompt": 3}, "is a string or a list of messages: .* got 3"),
            ({"prompt": ""}, "has no tokens"),
            ({"prompt": "abcd"}, "option prompt has 4 tokens, and there is room for 3"),
            ({"prompt_ids": []}, "list of token ids"),
            ({"prompt_ids": [11]}, "from 0 to 10"),
            ({"prompt_ids": [-1]}, r"got \[-1\]"),
            ({"prompt_ids": [0.5]}, "list of token ids"),
            ({"prompt_ids": [[1]]}, "list of token ids"),
            ({"prompt_ids": [1] * 4}, "option prompt_ids has 4 tokens"),
        ],
    )
    def test_what_is_refused(
        self, make_env: MakeEnv, options: dict[str, Any], message: str
    ) -> None:
        env = make_env()
        env.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)

    def test_long_prompts_may_lose_their_beginning(self, make_env: MakeEnv) -> None:
        env = make_env(prompt_truncation="left", context_length=10)
        observation, info = env.reset(options={"prompt": "abcd"})
        assert info == {"prompt": "abcd"}
        assert observation["input_ids"].tolist()[:3] == [3, 4, EOS]
        assert env.reset(options={"prompt_index": 1})[0]["input_ids"].tolist()[:3] == [2, 3, EOS]


class TestActions:
    @pytest.mark.parametrize("action", [3, np.int64(3), np.int32(3), np.array(3), np.array([3])])
    def test_what_is_a_token(self, make_env: MakeEnv, action: Any) -> None:
        env = make_env().unwrapped
        env.reset(options={"prompt": "a"})
        assert env.step(action)[0]["input_ids"].tolist()[:2] == [1, 3]

    @pytest.mark.parametrize(
        ("action", "message"),
        [
            (11, "from 0 to 10, got 11"),
            (-1, "from 0 to 10, got -1"),
            (2**64, "got"),
            (2**63, f"got {2**63}"),
            (1.0, "whole number"),
            (True, "whole number, got True"),
            (np.True_, "whole number"),
            (None, "whole number"),
            ("a", "whole number"),
            (np.array([1, 2]), "an action is a token id"),
            ([], "an action is a token id"),
        ],
    )
    def test_what_is_none(self, make_env: MakeEnv, action: Any, message: str) -> None:
        env = make_env().unwrapped
        env.reset(options={"prompt": "a"})
        with pytest.raises(ValueError, match=re.escape(message)):
            env.step(action)
        assert env.step(3)[0]["input_ids"].tolist()[:3] == [1, 3, EOS]  # nothing was written

    def test_masks_leave_out_special_tokens_but_the_end(self, byte_tokenizer: Tokenizer) -> None:
        backend = copy.deepcopy(byte_tokenizer.backend)
        backend.add_special_tokens(["<pad>"])
        tokenizer = Tokenizer(backend, name="x", eos_token="<|endoftext|>", pad_token="<pad>")
        mask = TextGenEnv(tokenizer=tokenizer).action_masks()
        assert (mask.shape, mask.dtype) == ((258,), np.bool_)
        assert np.flatnonzero(~mask).tolist() == [257]


class TestRender:
    def test_ansi(self, make_env: MakeEnv) -> None:
        env = make_env(render_mode="ansi")
        env.reset(options={"prompt": "fgh"})
        _write(env, "abc")
        plain = re.sub(r"\x1b\[[\d;]*m", "", env.render())
        assert plain.startswith("fghabc")
        assert "+0.375" in plain

    def test_rgb_array(self, make_env: MakeEnv) -> None:
        env = make_env(render_mode="rgb_array")
        env.reset(options={"prompt": "fgh"})
        before = env.render()
        _write(env, "abc")
        after = env.render()
        assert (
            (before.shape, before.dtype) == (after.shape, after.dtype) == ((360, 640, 3), np.uint8)
        )
        assert (before != after).any()

    def test_human_prints_the_episode_as_it_is_written(
        self, make_env: MakeEnv, capsys: pytest.CaptureFixture[str]
    ) -> None:
        env = make_env(render_mode="human")
        env.reset(options={"prompt": "fgh"})
        _write(env, "abc.")
        printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
        assert printed.startswith("fghabc")
        assert env.render() is None

    def test_without_a_mode_it_says_what_to_do(self, make_env: MakeEnv) -> None:
        env = make_env().unwrapped
        env.reset()
        with pytest.warns(UserWarning, match="render_mode='ansi'"):
            assert env.render() is None


class TestTools:
    def test_pickle_in_the_middle_of_an_episode(self, make_env: MakeEnv) -> None:
        env = make_env(reward={"keywords": {"words": ["abc"]}, "length": 1.0}, stop=["jj"])
        env.reset(seed=0)
        _write(env, "ab")
        copies = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
        expected = [*_write(env, "c."), env.reset()]
        for other in copies:
            assert data_equivalence([*_write(other, "c."), other.reset()], expected)

    def test_all_that_is_public_can_be_imported(self) -> None:
        for name in textgym.__all__:
            assert getattr(textgym, name).__name__ == name
        with pytest.raises(AttributeError, match="no attribute 'TextGenenv'"):
            _ = textgym.TextGenenv


def test_long_random_run(byte_tokenizer: Tokenizer) -> None:
    """Texts in the infos are those of the actions, over many episodes of printable bytes."""
    env = TextGenEnv(tokenizer=byte_tokenizer, reward="length", max_new_tokens=10)
    rng = np.random.default_rng(0)
    printable = string.printable.encode()
    env.reset(seed=0)
    written = b""
    for _ in range(3000):
        byte = printable[rng.integers(len(printable))]
        written += bytes([byte])
        _, _, _, truncated, info = env.step(1 + byte)
        if truncated:
            assert info["text"] == written.decode()
            env.reset()
            written = b""
