"""The rewards that come with the package: their formulas, and the laws that all of them keep."""

import functools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from vaderSentiment.vaderSentiment import (
    BOOSTER_DICT,
    NEGATE,
    SPECIAL_CASES,
    SentimentIntensityAnalyzer,
)

from textgym import rewards
from textgym.checks import check_reward
from textgym.env import TextGenEnv
from textgym.rewards.edit_distance import EditDistance
from textgym.rewards.exact_match import ExactMatch
from textgym.rewards.keywords import Keywords
from textgym.rewards.sentiment import Sentiment
from textgym.tasks import Example, Task

PROMPT, REFERENCE, BUDGET = "He said", "a", 12
TASK = Task("one", {"train": (Example(PROMPT, REFERENCE),)})

# Letters and stops that make words and sentences, and the bytes of a character of three.
ALPHABET = [*range(1, 257), *(b + 1 for b in b"aaaa kk.. \n" + "你".encode() * 3)]
completions = st.lists(st.sampled_from(ALPHABET), max_size=BUDGET)


def vowels(text: str) -> int:
    return sum(text.count(vowel) for vowel in "aeiou")


def num_ids(token_ids: list[int], text: str) -> float:
    return 100.0 * len(token_ids) + len(text)


def trl_length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


MEMBERS = {
    "length": "length",
    "target_length": {"name": "length", "target": 5},
    "edit_distance": "edit_distance",
    "exact_match": "exact_match",
    "sentiment": "sentiment",
    "keywords": {"name": "keywords", "words": ["a", "kk"]},
    "target_token": "target_token",
    "function": vowels,
    "function_of_ids": num_ids,
    "trl": trl_length,
    "sum": {"exact_match": 0.5, "length": {"target": 3, "weight": -2.0}, "vowels": vowels},
}


@functools.cache
def env(name, tokenizer, timing="immediate", every="token"):
    return TextGenEnv(
        task=TASK,
        reward=MEMBERS[name],
        tokenizer=tokenizer,
        max_new_tokens=BUDGET,
        timing=timing,
        every=every,
    )


def play(environment, token_ids):
    """Rewards of the tokens and the last info."""
    environment.reset(seed=0)
    rewards_, info = [], {}
    for token in token_ids:
        _, reward, terminated, truncated, info = environment.step(token)
        rewards_.append(reward)
        if terminated or truncated:
            break
    assert terminated or truncated
    return rewards_, info


def whole(token_ids):
    """The tokens of a whole episode: until the end-of-text token or the budget."""
    return [*token_ids, 0][:BUDGET]


@pytest.mark.parametrize("every", ["token", "word", "sentence"])
@pytest.mark.parametrize("name", MEMBERS)
@settings(max_examples=50, deadline=None)
@given(token_ids=completions)
def test_immediate_rewards_add_up_to_the_delayed_one(byte_tokenizer, name, every, token_ids):
    immediate, info = play(env(name, byte_tokenizer, every=every), whole(token_ids))
    delayed, late_info = play(env(name, byte_tokenizer, "delayed"), whole(token_ids))
    assert not any(delayed[:-1])
    tolerance = 1e-6 * max(1.0, max(map(abs, np.cumsum(immediate))))
    assert sum(immediate) == pytest.approx(delayed[-1], abs=tolerance)
    assert info["scores"] == pytest.approx(late_info["scores"], abs=tolerance)
    assert info["text"] == late_info["text"] == byte_tokenizer.decode(token_ids)


def length_score(ids, text):
    return len(ids) / BUDGET


def target_length_score(ids, text):
    return 1 - abs(len(ids) - 5) / 5


def edit_distance_score(ids, text):
    a, b = text.strip(), REFERENCE.strip()
    return 1 - Levenshtein.distance(a, b) / max(len(a), len(b))


def keywords_score(ids, text):
    return (Keywords(["a"])(text) + Keywords(["kk"])(text)) / 2


FORMULAS = {
    "length": length_score,
    "target_length": target_length_score,
    "edit_distance": edit_distance_score,
    "exact_match": lambda ids, text: 1 if text.strip() == REFERENCE else -1,
    "sentiment": lambda ids, text: Sentiment()(text),
    "keywords": keywords_score,
    "target_token": lambda ids, text: ids.count(1 + ord(REFERENCE)) / BUDGET,
    "function": lambda ids, text: vowels(text),
    "trl": lambda ids, text: len(text),
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=80, deadline=None)
@given(token_ids=completions)
def test_the_rewards_of_an_episode_add_up_to_the_formula(byte_tokenizer, name, token_ids):
    paid, info = play(env(name, byte_tokenizer), whole(token_ids))
    expected = FORMULAS[name](token_ids, info["text"])
    assert sum(paid) == pytest.approx(expected, abs=1e-5)
    assert list(info["scores"].values()) == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_keeps_the_contract(byte_tokenizer, name):
    check_reward(MEMBERS[name], task=TASK, tokenizer=byte_tokenizer, max_new_tokens=16)


def test_length_pays_each_token_alike_and_the_end_of_text_nothing(byte_tokenizer):
    paid, _ = play(env("length", byte_tokenizer), [98, 98, 98, 0])
    assert paid == [pytest.approx(1 / BUDGET)] * 3 + [0.0]
    paid, _ = play(env("target_length", byte_tokenizer), whole([98] * BUDGET))
    assert paid == pytest.approx([0.2] * 5 + [-0.2] * (BUDGET - 5))


def test_edit_distance_is_from_zero_to_one():
    score = EditDistance()
    assert score("abcd", " abcd\n") == 1.0
    assert score("abed", "abcd") == 0.75
    assert score("", "abcd") == 0.0
    assert score("xyz", "abcd") == 0.0
    assert score("", "") == 1.0


def test_exact_match_is_one_or_minus_one(byte_tokenizer):
    assert ExactMatch()(" yes ", "yes") == 1.0
    assert ExactMatch()("Yes", "yes") == -1.0
    assert ExactMatch(ignore_case=True)("STRASSE", "straße") == 1.0
    a, b = 1 + ord("a"), 1 + ord("b")
    assert play(env("exact_match", byte_tokenizer), [b, 0])[0] == [-1.0, 0.0]
    assert play(env("exact_match", byte_tokenizer), [a, b, 0])[0] == [1.0, -2.0, 0.0]
    assert play(env("exact_match", byte_tokenizer), [0])[0] == [-1.0]


def test_sentiment_is_vader():
    assert Sentiment()("I love it, it is GREAT!") > 0.8
    assert Sentiment()("I hate this awful day.") < -0.6
    assert Sentiment()("") == Sentiment()("the of and") == 0.0
    assert Sentiment("negative")("I hate it.") == -Sentiment()("I hate it.") > 0
    with pytest.raises(ValueError, match="'positive' or 'negative', got 'happy'"):
        Sentiment("happy")


plain_vader = functools.cache(SentimentIntensityAnalyzer)

# What VADER has rules for, and words to use it on.
RULES = sorted({*NEGATE, *BOOSTER_DICT, *SPECIAL_CASES})
RATED = "great bad LOVE hate no nor so never without doubt least at but the 🙂 !"
rated = st.sampled_from(RATED.split()) | st.sampled_from(RULES)


@settings(max_examples=300, deadline=None)
@given(st.lists(rated, max_size=9).map(" ".join))
@example("so we gave them the kiss of death")
def test_remembering_ratings_changes_none(text):
    assert Sentiment()(text) == plain_vader().polarity_scores(text)["compound"]


def test_keywords_are_whole_words_in_any_case():
    score = Keywords(["king", "sweet heart", "c++"])
    assert score("The KING.") == pytest.approx(1 / 3)
    assert score("kingdom, sweet  heart") == 0.0
    assert score("king; Sweet heart (C++)") == 1.0


@pytest.mark.parametrize("words", ["king", [], [""], [3], 3])
def test_keywords_refuses_what_is_no_list_of_words(words):
    with pytest.raises(ValueError, match="expected a list of words"):
        Keywords(words)


@pytest.mark.parametrize("target", [0, -1, 2.5, "20", True])
def test_length_refuses_what_is_no_length(target):
    with pytest.raises(ValueError, match="length: target is a whole number of at least 1"):
        rewards.make({"name": "length", "target": target})


def test_target_token_needs_one_token(byte_tokenizer):
    def reset(target, reference):
        environment = TextGenEnv(
            task=Task("t", {"train": (Example("p", reference),)}),
            reward={"name": "target_token", "target": target},
            tokenizer=byte_tokenizer,
        )
        environment.reset(seed=0)

    with pytest.raises(rewards.RewardError, match="wants 'ab', which is 2 tokens"):
        reset("ab", None)
    with pytest.raises(rewards.RewardError, match="no reference to take it from") as error:
        reset(None, None)
    assert error.value.sample.prompt == "p"
    reset("a", "bc")


def test_success_is_the_best_score(byte_tokenizer):
    a, b = 1 + ord("a"), 1 + ord("b")
    for name in ("exact_match", "edit_distance"):
        assert play(env(name, byte_tokenizer), [a, 0])[1]["is_success"] is True
        assert play(env(name, byte_tokenizer), [b, 0])[1]["is_success"] is False
    assert play(env("target_token", byte_tokenizer), [a] * BUDGET)[1]["is_success"] is True
    assert play(env("target_token", byte_tokenizer), [a] * 3 + [0])[1]["is_success"] is False
    assert "is_success" not in play(env("sentiment", byte_tokenizer), [a, 0])[1]
