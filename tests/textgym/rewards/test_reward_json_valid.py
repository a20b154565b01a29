"""Valid JSON, and text that can become it: held against Python's own parser."""

import itertools
import json

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from textgym.rewards.json_valid import JsonValid, read_prefix

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
LAYOUTS = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 2]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":"), (" , ", " : ")]),
    }
)


def is_json(text):
    """Whether Python's parser takes a text, without the constants that are not JSON."""

    def refuse(constant):
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


@settings(max_examples=200)
@given(VALUES, LAYOUTS)
@example({"a": [1.5e-7, '"\\\u2028\ud83d\ude42'], "": {}}, {"indent": 1})
def test_every_beginning_of_json_can_become_json(value, layout):
    text = json.dumps(value, **layout)
    for end in range(len(text) + 1):
        prefix = read_prefix(text[:end])
        assert prefix.length == end
        assert prefix.is_whole == is_json(text[:end])
    keys = value.keys() if isinstance(value, dict) else set()
    assert read_prefix(text).keys == keys


# All that a beginning with at most three open brackets can need to become JSON: the rest of a
# string, number or word, of a member, and of the brackets.
RESTS = '0,",n",0000",000",00",0","",rue,ue,e,alse,lse,se,ull,ll,l'
STARTS = ["", *RESTS.split(",")]
MEMBERS = ["", ":0", '"":0']
ENDS = ["".join(b) for n in range(4) for b in itertools.product("]}", repeat=n)]
COMPLETIONS = [a + b + c for a in STARTS for b in MEMBERS for c in ENDS]

CHARACTERS = '[[{{]}"":,,  01-.eE+trufalsn\\/xb\x00\n'


@st.composite
def nearly_json(draw):
    """JSON with one character more, less or changed."""
    text = json.dumps(draw(VALUES))
    place = draw(st.integers(0, len(text)))
    new = draw(st.sampled_from(["", *CHARACTERS]))
    return text[:place] + new + text[place + draw(st.integers(0, 1)) :]


def can_become_json(text):
    return any(is_json(text + rest) for rest in COMPLETIONS)


@settings(max_examples=300)
@given(st.text(CHARACTERS, max_size=12) | nearly_json())
@example('{"a":tr')
@example('{"a\\u00')
@example("[1,]")
@example('{"a":0,}')
@example('"\x1f"')
@example('{"a",')
@example("[01")
@example("-e")
@example('"\\x')
@example("\u00a01")
@example("[٣]")
@example("nulll")
def test_the_longest_beginning_is_found(text):
    assume(text.count("[") + text.count("{") <= 3)
    prefix = read_prefix(text)
    assert prefix.is_whole == is_json(text)
    assert can_become_json(text[: prefix.length])
    if prefix.length < len(text):
        assert not can_become_json(text[: prefix.length + 1])


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0.0),
        ("{", 0.5),
        ('{"a": 1}', 1.0),
        (' {"a": [true, null]}\n', 1.0),
        ("{'a': 1}", 0.5 / 8),
        ('{"a": 1} so', 0.5 * 9 / 11),
        ("Sure: {}", 0.0),
        ("NaN", 0.0),
        ("-Infinity", 0.5 / 9),
        ("tr", 0.5),
        ("12", 1.0),
        ("12.", 0.5),
        ('"你好🙂"', 1.0),
        ("// no", 0.0),
    ],
)
def test_the_score(text, score):
    assert JsonValid()(text) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"name": 1, "age": 2, "more": 3}', 1.0),
        ('{"name": 1}', 0.75),
        ('{"n\\u0061me": 1}', 0.75),
        ('{"x": {"name": 1, "age": 2}}', 0.5),
        ('[{"name": 1, "age": 2}]', 0.5),
        ('["name", "age"]', 0.5),
        ("1", 0.5),
        ('{"name": 1, "age": 2', 0.5),
        ("", 0.0),
    ],
)
def test_wanted_keys(text, score):
    assert JsonValid(keys=["name", "age"])(text) == pytest.approx(score)


def test_depth_and_length_have_no_limit():
    deep = 100_000
    assert JsonValid()("[" * deep + "]" * deep) == 1.0
    assert JsonValid()("[" * deep) == 0.5
    assert JsonValid()("9" * deep) == 1.0
    assert JsonValid()('"' + "\\n" * deep + '"') == 1.0


@pytest.mark.parametrize("keys", ["name", None, [1], {"name": 1}])
def test_keys_are_a_list_of_strings(keys):
    with pytest.raises(ValueError, match="json_valid: keys is a list of strings"):
        JsonValid(keys=keys)
