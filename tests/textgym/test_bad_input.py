"""What a person may give an environment works, or is refused with the value and the cure."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym import RewardError, TextGenEnv, TextGenVectorEnv
from textgym.checks.vector_env import AutoresetMode
from textgym.tokenizer import Tokenizer

gym.register_envs(textgym)

HALF = "\ud800"
"""Half a surrogate pair."""

SMALL: dict[str, Any] = {"reward": "length", "max_new_tokens": 3}

REFUSED: dict[str, list[Any]] = {
    "task": [None, True, 3, math.nan, "", "contnuation", [], {}, {"name": 3}, b"file"],
    "split": [None, 3, "", "trian", [], {}],
    "reward": [True, 3, math.nan, "", "lenght", [], {}, [3], {"length": math.nan}, b"length"],
    "timing": [None, "late", 3, []],
    "every": [None, "letter", 3, []],
    "tokenizer": [None, True, 3, math.nan, "", " ", [], {}, b"builtin"],
    "vocabulary": [True, 3, "", "no/such.txt", [], {}, {"king"}, b"king", [""], [HALF], [-1],
                   [10**6], [1.5], [True], [None], [math.nan]],
    "chat": [0, 1, "yes", []],
    "templates": [True, 3, "", "{prompt}", [""], [3], {"{prompt}": 1}, ["none"], ["{prompt"],
                  ["{prompt.__class__}"], [HALF + "{prompt}"]],
    "prompts": [None, 3, "", "bandits", [], {}, "bandit"],
    "max_new_tokens": [None, True, 0, -1, 1.5, math.nan, math.inf, "3", [], 2**70],
    "context_length": [True, 0, -1, 1, 1.5, math.nan, math.inf, "300", [], 2**70],
    "stop": [True, 3, "", ".", [""], [3], {".": 1}, b".", [HALF]],
    "budget_is_terminal": [None, 0, 1, "no", "false", math.nan, []],
    "prompt_truncation": [None, True, "right", []],
    "render_mode": [True, "ascii", 3, []],
}  # fmt: skip

CASES = [pytest.param(name, value, id=f"{name}={value!r}"[:60])
         for name, values in REFUSED.items() for value in values]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CASES)
def test_arguments_are_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        TextGenEnv(**{**SMALL, name: value})
    told = str(caught.value)
    words = {"task": "task", "reward": "reward", "tokenizer": "model", "templates": "template",
             "prompts": "bandit", "vocabulary": "vocabulary"}  # fmt: skip
    assert words.get(name, name) in told or repr(value) in told
    assert told.endswith((".", "]", "'"))


@pytest.mark.parametrize("value", [None, True, 0, -1, 1.5, math.nan, "2", [], 2**70])
def test_a_number_of_environments_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"num_envs is a whole number|do not fit into memory"):
        TextGenVectorEnv(value, **SMALL)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"environments x context length.*Give fewer environments"):
        TextGenVectorEnv(10**6, reward="length", max_new_tokens=10**5)


@pytest.mark.parametrize("length", [np.int64(40), 40])
def test_a_whole_number_of_numpy_is_a_whole_number(length: Any) -> None:
    env = TextGenEnv(reward="length", max_new_tokens=np.int64(3), context_length=length)
    assert env.observation_space["input_ids"].shape == (40,)  # type: ignore[index]
    pickle.dumps(env.process.prompts.context_length)
    assert type(env.process.prompts.context_length) is int


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70).filter(lambda n: not 4 < n < 2**40)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


def says(error: Exception, words: str) -> None:
    """An error of ours, a sentence with these words, and none of Python's or numpy's."""
    told = str(error)
    assert words in told
    assert told.endswith((".", "]", "'")), told
    assert not re.search(r"object is not|unhashable|has no (len|attribute)|not supported", told)


@settings(max_examples=100)
@given(name=st.sampled_from(sorted({*REFUSED} - {"tokenizer", "task"})), value=anything)
def test_any_argument_works_or_is_refused(name: str, value: Any) -> None:
    try:
        env = TextGenEnv(**{**SMALL, name: value})
    except (ValueError, TypeError, FileNotFoundError) as error:
        says(error, "")
        return
    env.reset(seed=0)
    observation, reward, *_ = env.step(int(env.action_space.sample()))
    assert env.observation_space.contains(observation)
    assert math.isfinite(reward)


@settings(max_examples=100)
@given(action=anything)
def test_any_action_is_written_or_refused_and_changes_nothing(action: Any) -> None:
    env = TextGenEnv(**SMALL)
    observation, _ = env.reset(seed=0)
    length = int(observation["attention_mask"].sum())
    try:
        observation, *_ = env.step(action)
    except ValueError as error:
        says(error, "token id")
        observation, *_ = env.step(5)
    assert int(observation["attention_mask"].sum()) == length + 1


@settings(max_examples=100)
@given(options=anything | st.dictionaries(
    st.sampled_from(["prompt", "prompt_ids", "prompt_index", "reference", "reset_mask",
                     "group_size", "promt"]), anything, max_size=2))  # fmt: skip
def test_any_reset_option_works_or_is_refused(options: Any) -> None:
    env = TextGenVectorEnv(2, **SMALL)
    try:
        observation, _ = env.reset(seed=0, options=options)
    except (ValueError, TypeError) as error:
        says(error, "")
        observation, _ = env.reset(seed=0)  # and nothing is broken by it
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("options", [3, "prompt", ["prompt"], {"prompt_index": True}])
def test_reset_options_are_refused(options: Any) -> None:
    for env in (TextGenEnv(**SMALL), TextGenVectorEnv(2, **SMALL)):
        with pytest.raises((TypeError, ValueError), match=r"options of a reset|prompt_index"):
            env.reset(options=options)


@pytest.mark.parametrize("seed", [1.5, "x", math.nan, [1], {}, [[1, 2]]])
def test_seeds_of_rows_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds for 2 rows, .*; give one whole number"):
        TextGenVectorEnv(2, **SMALL).reset(seed=seed)


def test_seeds_may_be_an_array() -> None:
    env = TextGenVectorEnv(2, **SMALL)
    one, two = (env.reset(seed=seed)[0] for seed in (np.array([3, 5]), [3, 5]))
    np.testing.assert_array_equal(one["input_ids"], two["input_ids"])


def test_steps_out_of_turn_are_refused() -> None:
    env, rows = TextGenEnv(**SMALL), TextGenVectorEnv(2, **SMALL, autoreset_mode="Disabled")
    for each, action in ((env, 5), (rows, [5, 5])):
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            each.step(action)  # type: ignore[arg-type]  # before reset
        each.reset(seed=0)
        for _ in range(3):
            each.step(action)  # type: ignore[arg-type]
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            each.step(action)  # type: ignore[arg-type]  # after the end
    assert rows.autoreset_mode is AutoresetMode.DISABLED


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "contains", "token_f1", "error_rate"])
@pytest.mark.parametrize("value", ["no", 0, None, []])
def test_flags_of_rewards_are_true_or_false(name: str, value: Any) -> None:
    flag = {"rouge": "stem", "contains": "whole_words", "token_f1": "normalize",
            "error_rate": "ignore_case"}.get(name, "lowercase")  # fmt: skip
    with pytest.raises(TypeError, match=rf"reward '{name}': {flag} is true or false, got"):
        textgym.rewards.make({"name": name, flag: value})


def test_orders_without_end_are_refused() -> None:
    for given_ in ({"name": "bleu", "max_order": 2**70}, {"name": "chrf", "word_order": 2**70}):
        with pytest.raises(ValueError, match=r"order is a whole number from . to 100"):
            textgym.rewards.make(given_)


BROKEN_TOKENIZERS: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "holds no tokenizer.json"),
    "empty": ({"tokenizer.json": ""}, "is no tokenizer: EOF"),
    "other JSON": ({"tokenizer.json": "{}"}, "is no tokenizer: Model missing"),
    "a list": ({"tokenizer.json": "[1]"}, "is no tokenizer"),
    "half a config": ({"tokenizer_config.json": "{"}, "tokenizer_config.json is not JSON"),
    "a list of a config": ({"tokenizer_config.json": "[]"}, "is a JSON object, got"),
    "EOS by number": ({"tokenizer_config.json": '{"eos_token": 5}'}, "string or null, got 5"),
    "EOS unknown": ({"tokenizer_config.json": '{"eos_token": "<x>"}'}, "does not hold it"),
    "half a template": ({"chat_template.jinja": "{{ boom"}, "is not valid Jinja"),
    "a spying template": ({"chat_template.jinja": "{{ ''.__class__.__mro__ }}"}, "is unsafe"),
    "an endless template": (
        {"chat_template.jinja": "{% for i in range(10**9) %}{% endfor %}"}, "Range too big"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_TOKENIZERS)
def test_broken_tokenizers_are_refused(
    kind: str, byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    files, message = BROKEN_TOKENIZERS[kind]
    if kind != "nothing":
        byte_tokenizer.save_pretrained(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        TextGenEnv(tokenizer=str(tmp_path), **SMALL)
    assert str(tmp_path) in str(caught.value)


def test_long_texts_are_cut_into_pieces_without_a_copy_for_each(byte_tokenizer: Tokenizer) -> None:
    token_ids = byte_tokenizer.encode("é" * 50_000)
    pieces = byte_tokenizer.pieces(np.array([1]), token_ids)
    assert pieces[:4] == ["", "é", "", "é"]
    assert "".join(pieces) == "é" * 50_000


def test_a_reward_that_fails_says_with_what() -> None:
    env = TextGenEnv(reward=lambda text: math.nan, max_new_tokens=3)
    env.reset(options={"prompt": "Once"})
    with pytest.raises(RewardError, match="Once"):
        env.step(5)


def test_a_line_of_ten_megabytes_is_refused_at_once(tmp_path: Path) -> None:
    for name, line in (("word", "a" * 10**7), ("text", "to be or not " * 10**6)):
        path = tmp_path / f"{name}.txt"
        path.write_text("\n".join([line, *(f"prompt {number}" for number in range(20))]))
        with pytest.raises(ValueError, match=r"has 1[03],000,000 characters.*Cut it into pieces"):
            gym.make("TextGen-v0", task={"name": "file", "path": str(path)})
