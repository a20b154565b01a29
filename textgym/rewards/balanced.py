"""Brackets and quotes that come in pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from textgym.arguments import is_number


@dataclass(frozen=True)
class Balanced:
    """The share of brackets and quotes that have a partner, from 0 to 1; 1 counts as success.

    The score is 1 - u / a, where u of a brackets and quotes are without a partner. An opening one
    has none until it is closed, so that it costs and the closing one pays that back. Pairs may lie
    inside of each other and may not cross: in "(]", "([)" and ")(" a bracket is without a partner.
    Brackets inside of quotes count like others.

    A text without any, such as the empty one, scores `none`. By default that is the best score, so
    that nobody is paid for writing brackets: this is a condition on other rewards.

    Args:
        pairs: Opening and closing character of each pair, such as "()". A quote that is the same
            on both sides, such as '""', opens where it is not open. The apostrophe is not among
            the default pairs, as it stands alone in "don't".
        none: The score of a text without brackets and quotes, from 0 to 1. With 0.0 a text must
            use some to earn anything, and "()" earns all.

    Raises:
        ValueError: If `pairs` is not a list of pairs, a character is in two of them, or `none` is
            not from 0 to 1.
    """

    pairs: Sequence[str] = ("()", "[]", "{}", '""', "“”")
    none: float = 1.0

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        pairs, none = self.pairs, self.none
        named = isinstance(pairs, (list, tuple)) and all(
            isinstance(pair, str) and len(pair) == 2 for pair in pairs
        )
        if not named or not pairs:
            raise ValueError(
                f"balanced: pairs is a list of pairs of characters, such as ['()', '[]'], got "
                f"{pairs!r}."
            )
        characters = [character for pair in pairs for character in sorted(set(pair))]
        if len(set(characters)) < len(characters):
            raise ValueError(
                f"balanced: each character belongs to one pair, got {pairs!r}; leave one out."
            )
        if not is_number(none) or not 0.0 <= none <= 1.0:
            raise ValueError(f"balanced: none is a score from 0 to 1, got {none!r}.")

    def __call__(self, text: str) -> float:
        """The share of brackets and quotes that have a partner."""
        partners, pattern = _reader(tuple(self.pairs))
        marks = pattern.findall(text)
        if not marks:
            return float(self.none)
        return 2.0 * _matched(marks, partners) / len(marks)


def _matched(marks: Sequence[str], partners: dict[str, str]) -> int:
    """The number of pairs among these brackets and quotes.

    A closing one takes the last of its kind that is open; what was opened inside of that is given
    up.
    """
    num_pairs = 0
    opened: list[str] = []
    num_open = dict.fromkeys(partners.values(), 0)
    for mark in marks:
        opening = partners.get(mark)
        if opening is not None and num_open[opening]:
            num_pairs += 1
            inner = ""
            while inner != opening:
                inner = opened.pop()
                num_open[inner] -= 1
        elif opening is None or opening == mark:
            opened.append(mark)
            num_open[mark] += 1
    return num_pairs


@cache
def _reader(pairs: tuple[str, ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    """The opening character of each closing one, and what finds all of them."""
    partners = {pair[1]: pair[0] for pair in pairs}
    return partners, re.compile(f"[{re.escape(''.join(pairs))}]")
