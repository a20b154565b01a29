"""Rewards that look for an answer in the text: words, a letter or a number."""

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym  # noqa: F401  # registers the environments
from textgym.rewards.contains import Contains
from textgym.rewards.multiple_choice import MultipleChoice, chosen_letter
from textgym.rewards.numeric_error import NumericError, read_number
from textgym.tasks import Example, Task


def test_contains_finds_whole_words():
    assert Contains()("It is Rome.", "rome") == 1.0
    assert Contains()("Romeo", "Rome") == 0.0
    assert Contains()("", "Rome") == 0.0
    assert Contains()("in New\n  York!", "new york") == 1.0
    assert Contains(ignore_case=False)("rome", "Rome") == 0.0
    assert Contains()("STRASSE", "straße") == 1.0
    assert Contains()("I like C++ (much)", "c++") == 1.0
    assert Contains(answer="Rome")("Rome", "Paris") == Contains(answer="Rome")("Rome") == 1.0
    assert Contains()("你好世界", "世界") == 0.0
    assert Contains(whole_words=False)("你好世界", "世界") == 1.0


@pytest.mark.parametrize("answer", ["", "  ", 3])
def test_contains_refuses_an_answer_of_nothing(answer):
    with pytest.raises(ValueError, match="contains: answer is a text, or None"):
        Contains(answer=answer)


def test_contains_refuses_a_reference_of_nothing():
    with pytest.raises(ValueError, match="contains: the reference ' ' has nothing to look for"):
        Contains()("text", " ")


CHOICES = {
    "B": "B",
    " b ": "B",
    "(B)": "B",
    "(b)": "B",
    "b) Paris": "B",
    "B. Paris": "B",
    "B: Paris, not A": "B",
    "**B**": "B",
    "_B_": "B",
    "'B'": "B",
    r"\boxed{B}": "B",
    "I say B because": "B",
    "The answer is B.": "B",
    "the answer is b": "B",
    "Answer: (b)": "B",
    "Answer = option B": "B",
    "the answer is: choice **D**": "D",
    "A is wrong, so the answer is C": "C",
    "The answer is A. No, the answer is C, and D is wrong.": "C",
    "The answer is A": "A",
    "The answer is A dog": None,
    "The answer is a": "A",
    "The answer is a dog": None,
    "A": "A",
    "A)": "A",
    "A, since": "A",
    "A king": None,
    "a king": None,
    "A's": None,
    "Both": None,
    "b is what I say": None,
    "an answer b": None,
    "E": None,
    "B2": None,
    "Ça, naïve": None,
    "": None,
    "你好": None,
}


@pytest.mark.parametrize(("text", "letter"), CHOICES.items())
def test_the_choice_is_read(text, letter):
    assert chosen_letter(text, 4) == letter


def test_multiple_choice_pays_right_wrong_and_none():
    score = MultipleChoice()
    assert [score(text, "B") for text in ("B", "C", "", "well")] == [1.0, -1.0, 0.0, 0.0]
    assert score("b)", "(B)") == score("the answer is b", "B. Paris") == 1.0
    assert MultipleChoice(5)("E", "E") == 1.0
    assert MultipleChoice(9)("I think", "I") == 0.0
    assert MultipleChoice(9)("I", "I") == 1.0


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"))
def test_any_letter_can_be_right(letter, reference):
    for form in ("{}", "({})", "{}.", "the answer is {}"):
        expected = 1.0 if letter == reference else -1.0
        assert MultipleChoice()(form.format(letter), form.format(reference)) == expected


def test_multiple_choice_refuses_a_reference_that_is_no_letter():
    with pytest.raises(ValueError, match="reference 'Paris' chooses no letter from A to D"):
        MultipleChoice()("A", "Paris")
    with pytest.raises(ValueError, match="chooses no letter from A to B"):
        MultipleChoice(2)("A", "C")


@pytest.mark.parametrize("choices", [1, 27, 2.0, "4", True])
def test_multiple_choice_refuses_other_numbers_of_letters(choices):
    with pytest.raises(ValueError, match="multiple_choice: choices is a whole number from 2 to 26"):
        MultipleChoice(choices)


NUMBERS = {
    "7": 7,
    "-7": -7,
    "−7": -7,  # noqa: RUF001
    "+7": 7,
    "is 7.": 7,
    "7.25": 7.25,
    ".25": 0.25,
    "-.5": -0.5,
    "wait...5": 5,
    "1,234.5": 1234.5,
    "1,23": 23,
    "12,345,678": 12345678,
    "1234,567": 567,
    "6e23": 6e23,
    "6e": 6,
    "$12": 12,
    "12km": 12,
    "x2": None,
    "x-3": 3,
    "3-4": 4,
    "(3)-4": 4,
    "3 - -4": -4,
    "1.2.3": 1.2,
    "1 then 2": 2,
    "١٢": 12,
    "1e999": float("inf"),
    "-": None,
    "": None,
    "NaN": None,
    "½²": None,
}


@pytest.mark.parametrize(("text", "number"), NUMBERS.items())
def test_the_last_number_is_read(text, number):
    assert read_number(text) == number


def test_the_first_number_is_read():
    assert read_number("1 then 2", "first") == 1
    assert NumericError(which="first")("4, not 8", "4 of 8") == 0.0


def test_numeric_error_is_squared_and_capped():
    score = NumericError()
    assert score("it is 12.50", "12.5") == 0.0
    assert score("6", "12") == -0.25
    assert (
        score("-24", "12") == score("", "12") == score("none", "12") == score("1e999", "12") == -1
    )
    assert score("0.5", "0") == -0.25
    score = NumericError(scale=2, cap=100)
    assert score("7", "4") == -2.25
    assert score("400", "4") == score("", "4") == -100
    assert score.score_range == (-100, 0)
    assert NumericError.score_range == (-1, 0)


def test_a_number_is_scored_as_far_as_it_is_written():
    written = ["", "1", "12", "12.", "12.5"]
    scores = [NumericError()(text, "12.5") for text in written]
    assert scores == pytest.approx([-1, -(0.92**2), -(0.04**2), -(0.04**2), 0])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_python_writes_it(number):
    assert read_number(repr(number)) == number
    assert NumericError()(repr(number), repr(number)) == 0.0


@pytest.mark.parametrize("reference", ["none", "", "1e999"])
def test_numeric_error_refuses_a_reference_without_a_number(reference):
    with pytest.raises(ValueError, match=r"numeric_error: the reference .* holds no number"):
        NumericError()("1", reference)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_numeric_error_refuses_other_scales_and_caps(value):
    with pytest.raises(ValueError, match="numeric_error: scale is a number above 0"):
        NumericError(scale=value)
    with pytest.raises(ValueError, match=r"numeric_error: cap is a number of at least 0\.001"):
        NumericError(cap=value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", True])
def test_numeric_error_refuses_other_tolerances(value):
    with pytest.raises(ValueError, match="numeric_error: tolerance is a number of at least 0"):
        NumericError(tolerance=value)


NEARLY = [
    ("1234", "1235"),
    ("5000", "5004"),
    ("5000", "4999.999"),
    ("12345678901", "12345678902"),
    ("0", "1e-9"),
]


@pytest.mark.parametrize(("reference", "text"), NEARLY)
@pytest.mark.parametrize("cap", [0.001, 1.0, 50.0, 1e6])
def test_only_the_right_number_is_a_success(byte_tokenizer, reference, text, cap):
    reward = {"name": "numeric_error", "cap": cap}
    for written, success in ((reference, True), (text, False)):
        env = gym.make(
            "TextGen-v0",
            task=Task("one", {"train": (Example("p", reference),)}),
            reward=reward,
            tokenizer=byte_tokenizer,
        )
        env.reset(seed=0)
        # By way of another number, so that rewards of many sizes add up.
        for token in [*(1 + byte for byte in f"3.3 {written}".encode()), 0]:
            _, _, _, _, info = env.step(token)
        assert info["is_success"] is success


def test_a_number_within_the_tolerance_is_right():
    score = NumericError(tolerance=0.01)
    assert score("99", "100") == score("101", "100") == score("100", "100") == 0.0
    assert score("98.9", "100") == pytest.approx(-(0.011**2))
    assert NumericError(scale=2, tolerance=0.5)("5", "4") == 0.0
    assert NumericError(scale=2, tolerance=0.5)("5.5", "4") == pytest.approx(-0.5625)


def test_numeric_error_refuses_another_place():
    with pytest.raises(ValueError, match="numeric_error: which is 'first' or 'last', got 'best'"):
        NumericError(which="best")
