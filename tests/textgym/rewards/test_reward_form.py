"""Rewards for the form of a text: their ranges, and the contract that all of them keep."""

import copy
import functools
import math
import pickle

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.checks import check_reward
from textgym.rewards import RewardError
from textgym.rewards.balanced import Balanced
from textgym.rewards.banned_words import BannedWords
from textgym.rewards.eos import Eos
from textgym.rewards.json_valid import JsonValid
from textgym.rewards.keywords import Keywords
from textgym.rewards.length import Length
from textgym.rewards.readability import Readability
from textgym.rewards.regex import Regex
from textgym.rewards.repetition import Repetition
from textgym.rewards.target_token import TargetToken
from textgym.tokenizer import Tokenizer

BUDGET = 10
LOWEST, HIGHEST = -math.inf, math.inf

FORMS = {
    "long": (Length(), (0, 1)),
    "short": (Length(wanted="short"), (-1, 0)),
    "target": (Length(4), (LOWEST, 1)),
    "repetition": (Repetition(), (0, 1)),
    "distinct_3": (Repetition(n=3, out_of="text"), (0, 1)),
    "eos": (Eos(), (0, 1)),
    "eos_missing": (Eos(missing=-2.0), (-2, 1)),
    "regex": (Regex("[a-z]+"), (0, 1)),
    "regex_search": (Regex("no", how="search"), (0, 1)),
    "regex_fullmatch": (Regex(".*", how="fullmatch"), (0, 1)),
    "json_valid": (JsonValid(), (0, 1)),
    "json_keys": (JsonValid(keys=["a", "b"]), (0, 1)),
    "balanced": (Balanced(), (0, 1)),
    "balanced_none": (Balanced(pairs=["<>", "()"], none=0.0), (0, 1)),
    "keywords": (Keywords(["king", "no"]), (0, 1)),
    "banned_words": (BannedWords(["no", "end"]), (LOWEST, 0)),
    "readability": (Readability(), (0, 1)),
    "grade": (Readability(target=None), (LOWEST, HIGHEST)),
    "target_token": (TargetToken("a"), (0, 1)),
}

# Bytes of which brackets, quotes and words are not rare.
ALPHABET = [*b'(){}[]""::,,01 no a. ', *range(256)]
token_lists = st.lists(st.sampled_from([1 + byte for byte in ALPHABET]), max_size=BUDGET)


@functools.cache
def env(name, tokenizer):
    return make_env(FORMS[name][0], tokenizer)


def make_env(reward, tokenizer):
    options = {"tokenizer": tokenizer, "max_new_tokens": BUDGET}
    return gym.make("TextGen-v0", reward={"it": reward}, **options).unwrapped


def play(environment, token_ids):
    """What each token of an episode earned, and the last info."""
    environment.reset(seed=0)
    paid = []
    for token in token_ids:
        _, reward, terminated, truncated, info = environment.step(token)
        paid.append(reward)
    assert terminated or truncated
    return paid, info


def ids(text):
    """The tokens of an episode: these bytes, and the end-of-text token if the budget has room."""
    return [*(1 + byte for byte in text.encode()), 0][:BUDGET]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=100)
@given(token_ids=token_lists)
def test_the_score_stays_in_its_range(byte_tokenizer, name, token_ids):
    reward, (low, high) = FORMS[name]
    assert reward.score_range == (low, high)
    paid, info = play(env(name, byte_tokenizer), [*token_ids, 0][:BUDGET])
    assert low - 1e-6 <= info["scores"]["it"] <= high + 1e-6
    assert sum(paid) == pytest.approx(info["scores"]["it"], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in FORMS if callable(FORMS[name][0])])
@given(text=st.text() | st.text('()[]{}"“”:,.01 aehlnorstuw'))
def test_any_text_has_a_score_in_the_range(name, text):
    reward, (low, high) = FORMS[name]
    score = reward(text)
    assert type(score) is float
    assert math.isfinite(score)
    assert low <= score <= high


@pytest.mark.parametrize("name", FORMS)
def test_every_one_keeps_the_contract(byte_tokenizer, name):
    check_reward(FORMS[name][0], tokenizer=byte_tokenizer, max_new_tokens=16)


@pytest.mark.parametrize("name", FORMS)
def test_a_copy_has_the_same_range(name):
    reward = FORMS[name][0]
    assert copy.deepcopy(reward).score_range == reward.score_range
    assert pickle.loads(pickle.dumps(reward)).score_range == reward.score_range


@pytest.mark.parametrize("reward", list(dict.fromkeys(type(each) for each, _ in FORMS.values())))
def test_the_class_says_the_range_of_its_defaults(reward):
    made = reward("a") if reward is Regex else reward()
    assert made.score_range == reward.score_range


@pytest.mark.parametrize(
    ("spec", "text", "score"),
    [
        ({"name": "length", "wanted": "short"}, "abcde", -0.5),
        ({"name": "repetition", "n": 1, "out_of": "text"}, "abab", 0.5),
        ({"name": "eos", "missing": -1.0}, "ab", 1.0),
        ({"name": "regex", "pattern": "[0-9]"}, "a1b2", 0.5),
        ({"name": "json_valid", "keys": ["a", "b"]}, '{"a": 1}', 0.75),
        ({"name": "balanced", "pairs": ["<>"]}, "<<>", 2 / 3),
        ({"name": "keywords", "words": ["a", "b"]}, "a c", 0.5),
        ({"name": "banned_words", "words": ["a"]}, "a b a", -2.0),
        ({"name": "readability", "target": 5}, "...", 0.0),
        ({"name": "target_token", "target": "a"}, "aab", 0.2),
    ],
)
def test_by_name_with_parameters(byte_tokenizer, spec, text, score):
    _, info = play(make_env(spec, byte_tokenizer), ids(text))
    assert info["text"] == text
    assert info["scores"]["it"] == pytest.approx(score)


def test_brevity_costs_by_the_token(byte_tokenizer):
    assert play(env("short", byte_tokenizer), ids("abc"))[0] == pytest.approx([-0.1] * 3 + [0.0])
    assert play(env("short", byte_tokenizer), [0])[0] == [0.0]
    assert play(env("short", byte_tokenizer), ids("a" * 10))[0] == pytest.approx([-0.1] * 10)


@pytest.mark.parametrize("wanted", ["shorter", None, True, 1])
def test_length_refuses_what_is_not_long_or_short(wanted):
    with pytest.raises(ValueError, match=f"length: wanted is 'long' or 'short', got {wanted!r}"):
        Length(wanted=wanted)


def test_a_short_text_has_no_target():
    with pytest.raises(ValueError, match="wanted='short' goes without a target, got target=3"):
        Length(3, wanted="short")


def ngrams(token_ids, n):
    return [tuple(token_ids[k : k + n]) for k in range(len(token_ids) - n + 1)]


@settings(max_examples=200)
@given(
    token_ids=st.lists(st.sampled_from([98, 99, 100]), max_size=BUDGET),
    n=st.integers(1, BUDGET + 2),
    out_of=st.sampled_from(["budget", "text"]),
)
def test_repetition_counts_distinct_ngrams(byte_tokenizer, token_ids, n, out_of):
    grams = ngrams(token_ids, n)
    possible = BUDGET - n + 1 if out_of == "budget" else len(grams)
    expected = len(set(grams)) / possible if grams else 0.0
    environment = make_env(Repetition(n, out_of), byte_tokenizer)
    _, info = play(environment, [*token_ids, 0][:BUDGET])
    assert info["scores"]["it"] == pytest.approx(expected, abs=1e-6)


def test_a_new_ngram_earns_its_share_and_an_old_one_nothing(byte_tokenizer):
    paid, _ = play(env("repetition", byte_tokenizer), ids("ababb"))
    assert paid == pytest.approx([0, 1 / 9, 1 / 9, 0, 1 / 9, 0])
    paid, _ = play(make_env(Repetition(out_of="text"), byte_tokenizer), ids("abab"))
    assert paid == pytest.approx([0, 1, 0, 2 / 3 - 1, 0])


def test_only_a_whole_budget_without_repetition_has_the_best_score(byte_tokenizer):
    _, info = play(env("repetition", byte_tokenizer), ids("abcdefghij"))
    assert info["scores"]["it"] == pytest.approx(1.0)
    for text in ("a", "ab", "abcdefghi", "aaaaaaaaaa"):
        assert play(env("repetition", byte_tokenizer), ids(text))[1]["scores"]["it"] < 0.95


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True])
def test_repetition_refuses_what_is_no_ngram(n):
    with pytest.raises(ValueError, match="repetition: n is a whole number of at least 1"):
        Repetition(n)


def test_repetition_is_out_of_budget_or_text():
    with pytest.raises(ValueError, match="out_of is 'budget' or 'text', got 'words'"):
        Repetition(out_of="words")


def test_eos_is_paid_with_the_last_token(byte_tokenizer):
    paid, info = play(env("eos", byte_tokenizer), ids("ab"))
    assert (paid, info["is_success"]) == ([0.0, 0.0, 1.0], True)
    assert play(env("eos", byte_tokenizer), [0])[0] == [1.0]
    paid, info = play(env("eos", byte_tokenizer), ids("a" * BUDGET))
    assert (paid, info["is_success"]) == ([0.0] * BUDGET, False)
    paid, _ = play(env("eos_missing", byte_tokenizer), ids("a" * BUDGET))
    assert paid == [0.0] * (BUDGET - 1) + [-2.0]
    # In the very last place of the budget it still counts.
    paid, _ = play(env("eos_missing", byte_tokenizer), ids("a" * (BUDGET - 1)))
    assert paid == [0.0] * (BUDGET - 1) + [1.0]


def test_a_stop_string_is_not_the_end_of_text(byte_tokenizer):
    options = {"tokenizer": byte_tokenizer, "max_new_tokens": BUDGET, "stop": ["."]}
    environment = gym.make("TextGen-v0", reward=Eos(missing=-1.0), **options).unwrapped
    assert play(environment, ids("ab.")[:3])[0] == [0.0, 0.0, -1.0]


@pytest.mark.parametrize("missing", [1.0, 2, math.nan, -math.inf, "-1", None, True])
def test_eos_refuses_what_is_no_penalty(missing):
    with pytest.raises(ValueError, match="eos: missing is a finite number below 1"):
        Eos(missing=missing)


def test_eos_needs_a_token_that_ends_a_text(byte_tokenizer):
    without = Tokenizer(byte_tokenizer.backend, name="endless")
    with pytest.raises(RewardError, match=r"pays for an end-of-text token, and .* has none"):
        make_env(Eos(), without).reset(seed=0)
