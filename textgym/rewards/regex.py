"""A regular expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from textgym.rewards.parameters import check_choice


@dataclass(frozen=True)
class Regex:
    r"""How much of the text matches a regular expression, from 0 to 1; 1 counts as success.

    As a "share" the score is the share of the text's characters that lie in matches of the
    pattern, counted from the left without overlap: 1 if the whole text is matches, and a partial
    credit that changes with every token. "search" and "fullmatch" score 1 or 0.

    The empty text scores 0 as a share; otherwise the pattern decides.

    Args:
        pattern: In Python's syntax. `(?i)` in front ignores case, `(?s)` lets `.` match line
            breaks too. A pattern with nested repetitions, such as `(a+)+b`, can take a time
            exponential in the length of the text, and it is tried after every token.
        how: "share"; "search" asks whether the pattern is found anywhere in the text;
            "fullmatch" whether it matches the whole text.

    Raises:
        ValueError: If the pattern is not a regular expression, or `how` is something else.
    """

    pattern: str
    how: str = "share"

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_choice("regex", "how", self.how, ("share", "search", "fullmatch"))
        if not isinstance(self.pattern, str) or not self.pattern:
            raise ValueError(
                f"regex: pattern is a regular expression, such as '[0-9]+', got {self.pattern!r}."
            )
        try:
            _compiled(self.pattern)
        except (re.error, OverflowError) as error:
            raise ValueError(
                f"regex: pattern {self.pattern!r} is no regular expression: {error}. Put a "
                "backslash before a character that stands for itself."
            ) from error

    def __call__(self, text: str) -> float:
        """The share of the characters matched, or whether there is a match."""
        pattern = _compiled(self.pattern)
        if self.how == "search":
            return float(pattern.search(text) is not None)
        if self.how == "fullmatch":
            return float(pattern.fullmatch(text) is not None)
        matched = sum(match.end() - match.start() for match in pattern.finditer(text))
        return matched / len(text) if text else 0.0


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
