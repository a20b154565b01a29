"""Spelling: the share of words that the language does not have."""

import pickle
import sys

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym  # noqa: F401  # registers the environment
from textgym import rewards
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards.spelling import Spelling
from textgym.rewards.unfinished import without_last_word, words
from textgym.tasks import Example, Task


def score(text, prompt="", continues=True, **parameters):
    sample = Sample(prompt, text, None, [], {}, continues=continues)
    [value] = Spelling(**parameters).score([sample])
    return value


def test_it_is_minus_the_share_of_unknown_words():
    assert score("The king sleeps.") == 0.0
    assert score("The kingg sleeps.") == pytest.approx(-1 / 3)
    assert score("The kingg sleepsx.") == pytest.approx(-2 / 3)
    assert score("xqzzv ") == -1.0


def test_nothing_costs_nothing():
    for text in ("", " ", "...", "\n", "42 1,000 3rd 😀 ", "xqzzv"):
        assert score(text) == 0.0


def test_the_word_that_is_being_written_does_not_count():
    text = "The kingg."
    assert [score(text[:end]) for end in range(len(text) + 1)] == [0.0] * len(text) + [-0.5]
    assert score("I do n") == score("I don'") == score("I don't") == score("I don't ") == 0.0


def test_a_word_that_begins_in_the_prompt_is_judged_whole():
    assert score("xqz sleeps. ", "The k") == score("xqz sleeps. ", "k") == -0.5
    assert score("ygen rises. ", "The ox") == 0.0 > score("ygen rises. ", "The ox ")
    assert score("'ll sleep. ", "I") == score(" sleep. ", "The kingg") == 0.0
    assert score("", "The kingg") == score("' ", "The kingg") == 0.0


def test_a_text_that_does_not_go_on_with_the_prompt_begins_a_word():
    assert score("Red is nice. ", "Name a colour") == pytest.approx(-1 / 3)
    assert score("Red is nice. ", "Name a colour", continues=False) == 0.0
    assert score("ygen rises. ", "The ox", continues=False) == -0.5


@pytest.mark.parametrize(
    ("templates", "score"), [(["{prompt}"], -1 / 3), (["{prompt}\nAnswer:\n"], 0.0)]
)
def test_a_template_may_put_something_between(byte_tokenizer, templates, score):
    task = Task("one", {"train": [Example("Name a colour")]})
    options = {"task": task, "tokenizer": byte_tokenizer, "templates": templates}
    env = gym.make("TextGen-v0", reward="spelling", **options)
    env.reset(seed=0)
    paid = [env.step(token)[1] for token in byte_tokenizer.encode_plain("Red is nice.")]
    assert sum(paid) == pytest.approx(score)


def test_names_contractions_hyphens_and_old_words():
    assert score("London, Hamlet\u2019s well-known mother-in-law don't 'tis kill'd o'er. ") == 0.0
    assert score("Tiberlain's gone. ") == -0.5
    assert score("well-knowwn ") == -0.5
    assert score("NAÏVE café ") == 0.0


def test_words_with_digits_are_not_judged():
    assert score("xqzzv9 kingg king ") == -0.5


def test_words_of_your_own():
    assert score("TIBERLAIN\u2019S old tiberlain. ", known=["Tiberlain", "tiberlain's"]) == 0.0


def test_the_threshold_leaves_out_rare_words():
    assert score("Prithee sleep. ") == 0.0
    assert score("Prithee sleep. ", threshold=3) == -0.5


def test_languages_have_words_of_their_own():
    assert score("Die Fußgänger schlafen. ", language="de") == 0.0
    assert score("Die Fußgänger schlafen. ", language="en") < 0.0
    assert score("l'homme d'aujourd'hui ", language="fr") == 0.0


WORDS = st.sampled_from(["king", "kingg", "don't", "xqzzv", "a", "Zürich", "2nd"])


@given(st.lists(WORDS), st.sampled_from([" ", ", ", "\n", ". ", "-"]))
def test_only_the_share_matters(words_, gap):
    text = gap.join([*words_, ""])
    judged = [word for word in words_ if word != "2nd"]
    unknown = sum(word in ("kingg", "xqzzv") for word in judged)
    assert score(text) == pytest.approx(-unknown / max(1, len(judged)))


@given(st.text(), st.text(), st.from_regex(r"\w+", fullmatch=True))
def test_a_word_costs_nothing_until_it_is_whole(prompt, text, word):
    assert score(f"{text} {word}", prompt) == score(f"{text} ", prompt)
    assert -1.0 <= score(text, prompt) <= 0.0


@given(st.text())
def test_a_text_without_its_last_word_loses_one_word_at_most(text):
    rest = without_last_word(text)
    assert text.startswith(rest)
    assert len(words(text)) - 1 <= len(words(rest)) <= len(words(text))
    assert without_last_word(text + ".") == text + "."


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"language": "xx"}, "spelling: language is one of .*en, .*, got 'xx'"),
        ({"language": "zh"}, "got 'zh'"),
        ({"threshold": 0}, "spelling: threshold is a Zipf frequency above 0 .*, got 0"),
        ({"threshold": float("nan")}, "got nan"),
        ({"threshold": "high"}, "got 'high'"),
        ({"known": "king"}, "spelling: known is a list of words, .*, got 'king'"),
        ({"known": [""]}, r"got \[''\]"),
    ],
)
def test_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        Spelling(**parameters)


def test_without_wordfreq_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(MissingExtra, match=r"'spelling' needs wordfreq.*textgym\[language\]"):
        rewards.make("spelling")


def test_it_keeps_the_contract():
    check_reward("spelling")
    copy = pickle.loads(pickle.dumps(Spelling(known=["Kingg"])))
    assert copy.score([Sample("", "kingg ", None, [], {})]) == [0.0]


def test_by_name_in_an_environment():
    env = gym.make("TextGen-v0", reward={"spelling": {"known": ["xqzzv"]}}, max_new_tokens=20)
    env.reset(seed=0)
    tokenizer = env.unwrapped.tokenizer
    ids = [*tokenizer.encode_plain(" xqzzv kingg."), tokenizer.eos_token_id]
    paid = [env.step(token)[1] for token in ids]
    assert sum(paid) == pytest.approx(-0.5)
    assert sum(reward != 0 for reward in paid) == 1
