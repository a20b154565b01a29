"""Brackets and quotes that come in pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.rewards.balanced import Balanced

NESTED = st.recursive(
    st.sampled_from(["", "a ", "don't"]),
    lambda inner: st.builds(
        lambda pair, a, b: pair[0] + a + pair[1] + b,
        st.sampled_from(["()", "[]", "{}", "“”"]),
        inner,
        inner,
    ),
)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 1.0),
        ("don't", 1.0),
        ("(", 0.0),
        ("()", 1.0),
        ("f(x[1], {2})", 1.0),
        ("(]", 0.0),
        ("([)]", 0.5),
        (")(", 0.0),
        ("())", 2 / 3),
        ("(((())", 4 / 6),
        ('"a" and "b"', 1.0),
        ('"a" and "', 2 / 3),
        ('("a)"', 0.5),
        ("“你好”", 1.0),
        ("”“", 0.0),
    ],
)
def test_the_share_of_those_with_a_partner(text, score):
    assert Balanced()(text) == pytest.approx(score)


@given(NESTED)
def test_what_is_nested_is_balanced(text):
    assert Balanced()(text) == 1.0


@given(NESTED, st.sampled_from("([{)]}"))
def test_one_more_bracket_is_without_a_partner(text, bracket):
    num_brackets = sum(map(text.count, "()[]{}“”"))
    for broken in (text + bracket, bracket + text):
        assert Balanced()(broken) == pytest.approx(num_brackets / (num_brackets + 1))


def test_a_text_without_brackets_may_earn_nothing():
    score = Balanced(none=0.0)
    assert [score(text) for text in ("", "a", "a(", "a(b)")] == [0.0, 0.0, 0.0, 1.0]


def test_pairs_of_ones_own():
    score = Balanced(pairs=["<>", "]^", "||"])
    assert score("(") == 1.0
    assert score("<a>") == score("]^") == score("|a|") == 1.0
    assert score("^]") == score("|") == 0.0


@pytest.mark.parametrize("pairs", ["()", [], ["("], ["(()"], [3], None])
def test_what_is_no_list_of_pairs_is_refused(pairs):
    with pytest.raises(ValueError, match="balanced: pairs is a list of pairs of characters"):
        Balanced(pairs=pairs)


@pytest.mark.parametrize("pairs", [["()", "()"], ["()", ")("], ["||", "|)"]])
def test_a_character_belongs_to_one_pair(pairs):
    with pytest.raises(ValueError, match="each character belongs to one pair"):
        Balanced(pairs=pairs)


@pytest.mark.parametrize("none", [-0.1, 1.1, float("nan"), "1", None, True])
def test_none_is_a_score(none):
    with pytest.raises(ValueError, match="balanced: none is a score from 0 to 1"):
        Balanced(none=none)
