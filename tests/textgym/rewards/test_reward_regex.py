"""A regular expression: what share of a text it matches, and whether it does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.rewards.regex import Regex


@pytest.mark.parametrize(
    ("pattern", "how", "text", "score"),
    [
        ("[0-9]+", "share", "12 ab 34", 0.5),
        ("[0-9]+", "share", "1234", 1.0),
        ("[0-9]+", "share", "", 0.0),
        ("a*", "share", "bbb", 0.0),
        ("aa", "share", "aaa", 2 / 3),
        ("[你好]", "share", "你好吗世", 0.5),
        ("[0-9]+", "search", "ab 1", 1.0),
        ("[0-9]+", "search", "ab", 0.0),
        ("a*", "search", "", 1.0),
        ("[0-9]+", "fullmatch", "12", 1.0),
        ("[0-9]+", "fullmatch", "12\n", 0.0),
        ("(?i)yes|no", "fullmatch", "YES", 1.0),
        ("<a>.*</a>", "fullmatch", "<a>1\n2</a>", 0.0),
        ("(?s)<a>.*</a>", "fullmatch", "<a>1\n2</a>", 1.0),
    ],
)
def test_share_search_and_fullmatch(pattern, how, text, score):
    assert Regex(pattern, how)(text) == pytest.approx(score)


@given(st.text("ab1 ", min_size=1))
def test_the_share_is_that_of_the_characters_found(text):
    assert Regex("[ab]")(text) == pytest.approx(sum(c in "ab" for c in text) / len(text))
    assert Regex("[ab]+")(text) == Regex("[ab]")(text)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a", r"regex: pattern '\(a' is no regular expression: .* at position 0"),
        ("ab**", r"is no regular expression: multiple repeat at position 3"),
        ("a{1,99999999999999999999}", "is no regular expression"),
        ("", "pattern is a regular expression, such as .*, got ''"),
        (None, "pattern is a regular expression, such as .*, got None"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern, problem):
    with pytest.raises(ValueError, match=problem):
        Regex(pattern)


def test_how_is_one_of_three():
    with pytest.raises(ValueError, match="how is 'share', 'search' or 'fullmatch', got 'match'"):
        Regex("a", how="match")
