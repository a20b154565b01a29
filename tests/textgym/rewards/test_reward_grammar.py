"""Grammar: Harper's errors per word, sentence by sentence."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym  # noqa: F401  # registers the environment
from textgym import rewards
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards import grammar
from textgym.rewards.grammar import Grammar
from textgym.rewards.unfinished import words

WRONG = "He go home."
RIGHT = "He goes home."


def score(text, prompt="", **parameters):
    [value] = Grammar(**parameters).score([Sample(prompt, text, None, [], {})])
    return value


def test_each_error_costs_one_word():
    assert score(RIGHT) == 0.0
    assert score(WRONG) == pytest.approx(-1 / 3)
    assert score(f"{WRONG} The the king sleeps.") == pytest.approx(-2 / 7)
    assert score(f"{WRONG} {RIGHT}") == pytest.approx(-1 / 6)


def test_nothing_costs_nothing():
    for text in ("", " ", "\n\n", "你好", "\ud83d".encode("utf-8", "replace").decode(), "?"):
        assert score(text) == score(text, "He go home. The the") == 0.0


def test_the_word_that_is_being_written_is_left_out():
    assert [score(text) for text in ("He", "He ", "He go", "He goe", "He goes ")] == [0.0] * 5
    assert score("He go ") == score("He go ho") == score("He go,") == -0.5
    assert score("He was in a m") == 0.0  # which would be "an m"
    assert score("He was in a man") == 0.0


def test_a_sentence_that_begins_in_the_prompt_is_checked_whole():
    assert score(" go home.", "Now he") == -0.5
    assert score(" go home.", "Now he", with_prompt=False) == 0.0
    assert score(" go home.", "He sleeps. Now he") == -0.5
    assert score(" go home.", "I saw him.\n\nNow he") == -0.5


def test_errors_of_the_prompt_do_not_count():
    assert score(" home.", "He go") == 0.0
    assert score(" He goes home.", "The the king. He go home.") == 0.0
    assert score(" He go home.", "The the king. He go home.") == pytest.approx(-1 / 3)
    assert score("the the man sleeps.", "He go home. ") == pytest.approx(-1 / 4)


def test_kinds_that_are_ignored_cost_nothing():
    wrong = 'He go home -- and teh the the king said "colour. They waited .. long ,and i'
    assert score(wrong, ignore=[]) < score(wrong) < 0.0
    assert score(wrong, ignore=list(grammar._KINDS)) == 0.0
    assert score(WRONG, ignore=["Agreement"]) == 0.0


def test_dialects_differ():
    text = "My favourite colour is red."
    assert score(text, ignore=[], dialect="british") == 0.0
    assert score(text, ignore=[], dialect="american") == pytest.approx(-2 / 5)


SENTENCES = [WRONG, RIGHT, "The the king!", 'I said: "He go."', "Why is he here?", "I has it…"]


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6))
@settings(max_examples=40)
def test_the_errors_of_a_text_are_those_of_its_sentences(sentences):
    errors = sum(score(sentence) * len(words(sentence)) for sentence in sentences)
    text = " ".join(sentences)
    assert score(text) * len(words(text)) == pytest.approx(errors)
    assert score(text) < 0.0 or set(sentences) <= {RIGHT, "Why is he here?"}


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=60)
def test_any_text_is_scored_in_range(prompt, text):
    assert -1.0 <= score(text, prompt) <= 0.0
    assert -1.0 <= score(text, prompt, ignore=[]) <= 0.0


def test_there_is_no_less_than_minus_one():
    assert score("i -- ", ignore=[]) == -1.0  # two errors in one word


def test_a_token_costs_its_own_sentence_only(monkeypatch):
    checked = []
    linter = grammar._linter("american", True)

    class Recorder:
        def lint(self, text, **options):
            checked.append(text)
            return linter.lint(text, **options)

    monkeypatch.setattr(grammar, "_linter", lambda *_: Recorder())
    grammar._num_errors.cache_clear()
    text = "A b c. D e f. G h"
    for end in range(len(text) + 1):
        score(text[:end])
    assert checked == ["A", "A b", "A b c.", "D", "D e", "D e f.", "G"]


def test_threads_have_linters_of_their_own():
    grammar._num_errors.cache_clear()
    texts = [f"He go to {number} places. " for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score, texts)) == [pytest.approx(-1 / 5)] * 200


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dialect": "scottish"}, "grammar: dialect is 'american', .*, got 'scottish'"),
        ({"ignore": "Spelling"}, r"ignore is a list of kinds, such as .*, got 'Spelling'"),
        ({"ignore": ["Speling"]}, "'Speling'; did you mean 'Spelling'?"),
        ({"ignore": [3]}, "no kind of error to ignore is called 3"),
    ],
)
def test_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        Grammar(**parameters)


def test_without_harper_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "harper", None)
    with pytest.raises(MissingExtra, match=r"'grammar' needs harper.*textgym\[language\]"):
        rewards.make("grammar")


def test_it_keeps_the_contract():
    check_reward("grammar")
    copy = pickle.loads(pickle.dumps(Grammar(ignore=["Spelling"])))
    assert copy.score([Sample("", WRONG, None, [], {})]) == [score(WRONG)]


def test_by_name_in_an_environment():
    env = gym.make(
        "TextGen-v0",
        reward={"grammar": {"with_prompt": False, "ignore": ["Spelling"]}},
        max_new_tokens=16,
    )
    env.reset(seed=0)
    tokenizer = env.unwrapped.tokenizer
    ids = [*tokenizer.encode_plain(" He go home."), tokenizer.eos_token_id]
    paid = [env.step(token)[1] for token in ids]
    assert sum(paid) == pytest.approx(-1 / 3)
    assert min(paid) == pytest.approx(-0.5)  # when "go" is whole


def test_an_answer_in_a_chat_stands_for_itself():
    alone = Grammar()
    answer = Sample("Which of them", "are you happy ? ", None, [], {})
    assert alone.score([answer._replace(continues=False)]) == alone.score(
        [answer._replace(prompt="")]
    )
