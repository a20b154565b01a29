"""Valid JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True)
class JsonValid:
    """1 for valid JSON, up to 1/2 for a text that begins like it, from 0; 1 counts as success.

    The score is p / 2 while the text is not whole, where p is the share of it that is the
    beginning of a JSON text: 1/2 as long as it can be continued to valid JSON, and less the
    earlier it went wrong. Valid JSON scores 1. With keys it is 1/2 for any JSON text and the other
    half in proportion to the keys found, so an object must be written.

    JSON is that of RFC 8259: one value of any type with space around it, no NaN and no comments.
    The empty text scores 0. Without keys the shortest texts, `{}` or `1`, have the best score.

    Args:
        keys: Keys that the text must have, if it is an object; those of objects inside of it do
            not count.

    Raises:
        ValueError: If `keys` is not a list of strings.

    Source: RFC 8259, The JavaScript Object Notation Data Interchange Format, 2017.
    """

    keys: Sequence[str] = ()

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        keys = self.keys
        if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys):
            raise ValueError(
                f"json_valid: keys is a list of strings, such as ['name', 'age'], got {keys!r}."
            )

    def __call__(self, text: str) -> float:
        """The score; see the class."""
        if not text:
            return 0.0
        prefix = read_prefix(text)
        if not prefix.is_whole:
            return 0.5 * prefix.length / len(text)
        if not self.keys:
            return 1.0
        found = sum(key in prefix.keys for key in self.keys)
        return 0.5 + 0.5 * found / len(self.keys)


class Prefix(NamedTuple):
    """How far a text is JSON.

    Attributes:
        length: Of the longest beginning of the text that can be continued to valid JSON.
        is_whole: Whether the text is valid JSON as it stands.
        keys: The keys of the outermost object so far; none if it is something else.
    """

    length: int
    is_whole: bool
    keys: frozenset[str]


# What a token is, is seen from its first character. Strings, numbers and words match as far as
# they are the beginning of one.
_TOKEN = re.compile(
    r"""
    (?P<space> [ \t\n\r]+ )
    | (?P<mark> [][{}:,] )
    | (?P<string> " (?: [^"\\\x00-\x1f]+ | \\["\\/bfnrt] | \\u[0-9A-Fa-f]{4} )*
                  (?: (?P<closed> ") | \\(?:u[0-9A-Fa-f]{0,3})? )? )
    | (?P<number> -? (?: 0 | [1-9][0-9]* )
                  (?: (?: \.[0-9]+ )? [eE][+-]?[0-9]* | \.[0-9]* )? | - )
    | (?P<word> t(?:r(?:ue?)?)? | f(?:a(?:l(?:se?)?)?)? | n(?:u(?:ll?)?)? )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

# What may come next. The first item of an array and the first key of an object have sets of their
# own: only there may the closing bracket follow at once.
_VALUE = frozenset({"string", "number", "word", "[", "{"})
_KEY = frozenset({"string"})
_FIRST = {"[": _VALUE | {"]"}, "{": _KEY | {"}"}}
_COLON = frozenset({":"})
_NOTHING: frozenset[str] = frozenset()
_AFTER_VALUE = {"": _NOTHING, "[": frozenset({",", "]"}), "{": frozenset({",", "}"})}


def read_prefix(text: str) -> Prefix:
    """Read a text as JSON as far as it goes; in linear time, at any depth."""
    opened = [""]
    keys: set[str] = set()
    expected = _VALUE
    for token in _TOKEN.finditer(text):
        kind = token.group() if token.lastgroup == "mark" else token.lastgroup
        if kind == "space":
            continue
        if kind not in expected:
            return Prefix(token.start(), False, frozenset(keys))
        if not _is_whole(token):
            return Prefix(token.end(), False, frozenset(keys))
        if kind == "string" and expected <= _FIRST["{"]:
            if len(opened) == 2:
                keys.add(json.loads(token.group()))
            expected = _COLON
        elif kind in (":", ","):
            expected = _KEY if kind == "," and opened[-1] == "{" else _VALUE
        elif kind in _FIRST:
            opened.append(kind)
            expected = _FIRST[kind]
        else:
            if kind in ("]", "}"):
                opened.pop()
            expected = _AFTER_VALUE[opened[-1]]
    return Prefix(len(text), expected is _NOTHING, frozenset(keys))


def _is_whole(token: re.Match[str]) -> bool:
    if token.lastgroup == "string":
        return token["closed"] is not None
    if token.lastgroup == "number":
        return token.group()[-1].isdigit()
    return token.lastgroup == "mark" or token.group() in ("true", "false", "null")
