"""Figures of diversity, counted by hand."""

import math

import pytest

from agents.judging import diversity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Lord, don't!", ["my", "lord", "don't"]),
        ("it\u2019s 3.5", ["it\u2019s", "3", "5"]),
        ("你好 hello世界", ["你", "好", "hello", "世", "界"]),
        ("...", []),
    ],
)
def test_words(text, expected):
    assert diversity.words(text) == expected


def test_distinct_counts_over_all_texts():
    texts = [["a", "b", "a", "b"], ["a", "b"]]
    assert diversity.distinct(texts, 1) == 2 / 6
    assert diversity.distinct(texts, 2) == 2 / 4  # ab, ba, ab, and ab
    assert math.isnan(diversity.distinct(texts, 5))
    assert math.isnan(diversity.distinct([], 1))


def test_texts_that_are_the_same():
    assert diversity.different(["x", "y", "x", "x"]) == 0.5
    assert diversity.different(["x", "y"]) == 1


def test_a_text_that_repeats_itself():
    assert diversity.repetition(list("abcabcabc"), n=3) == pytest.approx(1 - 3 / 7)
    assert diversity.repetition(list("abcdefgh"), n=3) == 0
    assert diversity.repetition(list("ab"), n=3) == 0
