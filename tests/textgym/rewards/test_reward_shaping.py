"""When a score is taken, and what is paid for it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.completion import Sample
from textgym.env import TextGenEnv
from textgym.rewards.shaping import whole_sentences, whole_words
from textgym.vector_env import TextGenVectorEnv


class Recorder:
    """A score that remembers what it was asked."""

    def __init__(self, text_only=False, values=len):
        self.text_only = text_only
        self.values = values
        self.asked: list[tuple[str, int]] = []

    def score(self, samples: Sequence[Sample]) -> list[float]:
        self.asked += [(sample.text, len(sample.token_ids)) for sample in samples]
        return [self.values(sample.text) for sample in samples]


def run(score, tokenizer, data: bytes, *, end=True, **kwargs):
    """Rewards of the bytes written, and of the end-of-text token after them."""
    env = TextGenEnv(reward=score, tokenizer=tokenizer, max_new_tokens=40, **kwargs)
    env.reset(options={"prompt": "p"})
    tokens = [*(byte + 1 for byte in data), *([0] if end else [])]
    return [env.step(token)[1] for token in tokens]


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("", 0, 0),
        ("ab", 0, 0),
        ("ab ", 2, 0),
        ("ab\n", 2, 3),
        (" ab cd", 3, 0),
        ("ab  cd. Ef", 7, 7),
        ("  ", 0, 0),
        ("Wait… what?! No", 12, 12),
        ("你好。再见", 0, 3),
        ("3.14 is", 4, 2),
    ],
)
def test_whole_units(text, words, sentences):
    assert whole_words(text) == words
    assert whole_sentences(text) == sentences


@given(st.text(st.sampled_from("ab .!\n\u00a0你"), max_size=12))
def test_whole_words_end_where_white_space_follows(text):
    length = whole_words(text)
    assert length == 0 or (not text[length - 1].isspace() and text[length].isspace())
    assert len(text[length:].split()) <= 1


def test_immediate_pays_each_gain_and_delayed_all_at_the_end(byte_tokenizer):
    assert run(Recorder(), byte_tokenizer, b"abc") == [1, 1, 1, 0]
    assert run(Recorder(), byte_tokenizer, b"abc", timing="delayed") == [0, 0, 0, 3]


def test_words_and_sentences_are_paid_when_they_are_whole(byte_tokenizer):
    recorder = Recorder()
    assert run(recorder, byte_tokenizer, b"ab cd", every="word") == [0, 0, 2, 0, 0, 3]
    assert recorder.asked == [("ab", 2), ("ab cd", 6)]
    recorder = Recorder()
    assert run(recorder, byte_tokenizer, b"A. Bc", every="sentence") == [0, 2, 0, 0, 0, 3]
    assert recorder.asked == [("A.", 2), ("A. Bc", 6)]


def test_a_score_of_the_text_is_not_asked_about_silent_tokens(byte_tokenizer):
    data = "a你".encode()
    recorder = Recorder(text_only=True)
    assert run(recorder, byte_tokenizer, data) == [1, 0, 0, 1, 0]
    assert recorder.asked == [("a", 1), ("a你", 4)]
    recorder = Recorder()
    assert run(recorder, byte_tokenizer, data) == [1, 0, 0, 1, 0]
    assert recorder.asked == [("a", 1), ("a", 2), ("a", 3), ("a你", 4), ("a你", 5)]


@pytest.mark.parametrize("every", ["token", "word", "sentence"])
def test_a_score_of_token_ids_sees_the_end_of_text_token(byte_tokenizer, every):
    def count(token_ids):
        return len(token_ids)

    assert sum(run(count, byte_tokenizer, b"Ab. ", every=every)) == 5
    assert sum(run(count, byte_tokenizer, b"Ab.", every=every)) == 4


@pytest.mark.parametrize("every", ["word", "sentence"])
def test_part_of_a_text_is_the_same_with_and_without_its_token_ids(byte_tokenizer, every):
    data = "Ab 你. Cd e. f".encode()
    with_ids, without = Recorder(), Recorder(text_only=True)
    paid = run(with_ids, byte_tokenizer, data, every=every)
    assert run(without, byte_tokenizer, data, every=every) == paid
    assert [text for text, _ in with_ids.asked] == [text for text, _ in without.asked]
    whole = [(t, n) for t, n in with_ids.asked if t != data.decode()]
    assert all(n == len(text.encode()) for text, n in whole)


@pytest.mark.parametrize("every", ["token", "word", "sentence"])
@pytest.mark.parametrize("text_only", [True, False])
def test_the_empty_text_is_scored_where_it_is_final(byte_tokenizer, every, text_only):
    recorder = Recorder(text_only, values=lambda text: 7.0)
    assert run(recorder, byte_tokenizer, b"", every=every) == [7.0]


def test_half_a_character_is_scored_once_the_text_is_final(byte_tokenizer):
    recorder = Recorder(text_only=True)
    assert run(recorder, byte_tokenizer, "你".encode()[:2]) == [0, 0, 1]
    assert recorder.asked == [("\ufffd", 3)]


def test_rounding_to_float32_does_not_add_up(byte_tokenizer):
    paid = run(lambda text: 0.1 * len(text), byte_tokenizer, b"a" * 39)
    # Every gain is rounded in the same direction; the sum is off by half an ulp of the last only.
    assert abs(sum(paid) - 3.9) <= np.spacing(np.float32(0.1))
    assert abs(39 * float(np.float32(0.1)) - 3.9) > 5 * np.spacing(np.float32(0.1))


def test_rows_of_different_ages_are_paid_for_their_own_text(byte_tokenizer):
    env = TextGenVectorEnv(
        3,
        reward=Recorder(text_only=True),
        tokenizer=byte_tokenizer,
        max_new_tokens=4,
        autoreset_mode="SameStep",
    )
    env.reset(seed=0)
    a, end = 1 + ord("a"), 0
    steps = [[a, end, a], [a, a, a], [end, a, a], [a, end, a], [a, a, a]]
    paid = np.array([env.step(np.array(tokens))[1] for tokens in steps])
    np.testing.assert_array_equal(paid, np.array(steps) == a)


def test_a_reward_is_held_back_until_its_episode_ends(byte_tokenizer):
    spec = {"name": "length", "target": 2}
    assert run(spec, byte_tokenizer, b"abc", timing="delayed") == [0, 0, 0, 0.5]
    assert run(spec, byte_tokenizer, b"abc") == [0.5, 0.5, -0.5, 0]


SCORES = {"long": len, "a": lambda text: text.count("a") - 0.25, "wide": lambda t: len(t) ** 2}


@settings(max_examples=60)
@given(
    text=st.text(st.sampled_from("ab .!\n\u00a0你é"), max_size=12),
    half=st.booleans(),
    end=st.booleans(),
    every=st.sampled_from(["token", "word", "sentence"]),
    weights=st.lists(st.integers(-4, 4), min_size=1, max_size=3),
)
def test_rewards_add_up_to_the_score_of_the_text(byte_tokenizer, text, half, end, every, weights):
    """Of any text, cut in the middle of a character, too; whenever it is scored, and paid."""
    data = text.encode()[: -1 if half else None]
    tokens = [*(byte + 1 for byte in data), *([0] if end else [])]
    if not tokens:
        return
    reward = {
        name: {"name": score, "weight": weight}
        for (name, score), weight in zip(SCORES.items(), weights, strict=False)
    }
    final = data.decode("utf-8", "replace")
    scores = {name: spec["name"](final) for name, spec in reward.items()}
    expected = sum(reward[name]["weight"] * score for name, score in scores.items())
    kwargs = {"tokenizer": byte_tokenizer, "max_new_tokens": len(tokens)}
    for timing in ("immediate", "delayed"):
        env = TextGenEnv(reward=reward, every=every, timing=timing, **kwargs)
        env.reset(options={"prompt": "p"})
        steps = [env.step(token) for token in tokens]
        assert sum(step[1] for step in steps) == pytest.approx(expected, abs=1e-4)
        for name, score in scores.items():
            paid = sum(step[4]["reward_components"][name] for step in steps)
            assert paid == pytest.approx(reward[name]["weight"] * score, abs=1e-4)
        info = steps[-1][4]
        assert info["score"] == pytest.approx(expected, abs=1e-4)
        assert info["scores"] == pytest.approx(scores, abs=1e-4)
        if timing == "delayed":
            assert not any(step[1] for step in steps[:-1])
