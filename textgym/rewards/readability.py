"""Readability of English text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from textgym.arguments import is_number
from textgym.extras import require
from textgym.rewards.parameters import check_choice

_MEASURES = {
    "automated_readability_index": False,
    "coleman_liau_index": False,
    "flesch_kincaid_grade": True,
    "gunning_fog": True,
    "linsear_write_formula": True,
    "smog_index": True,
}
"""Measures in school grades, and whether they need a dictionary of pronunciation."""

_NLTK_SINCE = (0, 7, 9)
"""The version of textstat from which on the dictionary comes by way of nltk, and not with it."""


@dataclass(frozen=True)
class Readability:
    """How near the English text is to a school grade, from 0 to 1, or the grade itself.

    The grade g is the number of years at a school of the USA that reading takes: long words and
    long sentences raise it. With a target n the score is 1 / (1 + |g - n|): 1 at the target and
    1/2 one grade away. Without one it is g, unbounded in both directions; give a negative weight
    for plain text.

    The grade of one or two words is far off, often below zero, and grows with the sentence. A text
    without a letter or digit, such as the empty one, scores 0.

    Args:
        target: The wanted grade; None for the grade itself.
        measure: "automated_readability_index" and "coleman_liau_index" count letters, words and
            sentences. "flesch_kincaid_grade", "gunning_fog", "linsear_write_formula" and
            "smog_index" count syllables, for which they need a dictionary:
            `python -m nltk.downloader cmudict`.

    Raises:
        ValueError: If the measure is none of these, or the target is not a finite number.
        FileNotFoundError: If the measure needs the dictionary and it is not there.
        MissingExtra: If textstat is not installed.

    Source: R. J. Senter and E. A. Smith, Automated Readability Index, 1967, and those that
    textstat, which computes them, names.
    """

    target: float | None = 6.0
    measure: str = "automated_readability_index"

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "textstat"

    def __post_init__(self) -> None:
        target, measure = self.target, self.measure
        check_choice("readability", "measure", measure, list(_MEASURES))
        if target is None:
            object.__setattr__(self, "score_range", (-math.inf, math.inf))
        elif not is_number(target) or not math.isfinite(target):
            raise ValueError(
                f"readability: target is a school grade, such as 6.0, or None, got {target!r}."
            )
        _grader(measure)

    def __call__(self, text: str) -> float:
        """The grade, or how near it is to the target."""
        if not any(map(str.isalnum, text)):
            return 0.0
        grade = _grader(self.measure)(text)
        return grade if self.target is None else 1.0 / (1.0 + abs(grade - self.target))


@cache
def _grader(measure: str) -> Callable[[str], float]:
    """The function that computes a measure."""
    textstat = require("textstat", extra="metrics", wanted_by="reward 'readability'")
    if _MEASURES[measure] and textstat.__version__ >= _NLTK_SINCE:
        _require_dictionary(measure)
    grade: Callable[[str], float] = getattr(textstat, measure)
    return grade


def _require_dictionary(measure: str) -> None:
    """Make sure that the dictionary is there, which textstat would try to download otherwise."""
    data = require("nltk.data", extra="metrics", wanted_by="reward 'readability'")
    try:
        data.find("corpora/cmudict")
    except LookupError as error:
        without = " or ".join(repr(name) for name, needs in _MEASURES.items() if not needs)
        raise FileNotFoundError(
            f"readability: measure {measure!r} needs the CMU pronouncing dictionary, which is "
            f"not on this machine: python -m nltk.downloader cmudict, or choose {without}."
        ) from error
