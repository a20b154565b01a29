"""How far a number in the text is from the right one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from textgym.arguments import is_number
from textgym.rewards.parameters import check_choice

_NUMBER = re.compile(
    r"(?<!\w)(?<!\d\.)"  # no part of a word, and 1.2.3 is not 1.2 and 3
    r"(?:(?<![)\]])[-+−])?"  # noqa: RUF001  # the minus of typesetters
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?<!\.)(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


_LEAST = 1e-5
"""What a wrong number costs at least, times the cap if that is above 1: far more than rounding."""

_LEAST_CAP = 1e-3


@dataclass(frozen=True)
class NumericError:
    """Minus the squared error of a number in the text, from -`cap` to 0; 0 is success.

    The score is -min(((x - y) / scale)^2, cap), where x is the number read from the text and y
    the one from the reference. With the defaults, a number that is off by half of the right one
    scores -0.25, and one off by all of it or more, as well as a text without a number, the empty
    text among them, -1.

    Only the right number counts as success, or one within `tolerance` of it; both score 0. Any
    other costs at least 0.00001, or a hundred-thousandth of a `cap` above 1, however near it is.

    A number being written is read as far as it stands: on the way to 12.5 the text says 1, 12,
    12 and 12.5, and each token is paid what it gained. Since the immediate reward counts from 0,
    the first token is paid -`cap` and what it gained.

    A number is 7, -7, 7.25, .25, 1,234.5 or 6e23, and does not begin inside a word; a hyphen
    after a letter, a digit or a closing bracket is no minus.

    Args:
        scale: The error that scores -1. None takes |y|, so that errors are relative to the right
            number; or 1 if that is 0.
        cap: Where the penalty stops, so that no wild number outweighs all else in training; at
            least 0.001.
        which: "last" or "first": which number to read, in the text and in the reference.
        tolerance: How far off a number may be and still be right, in units of the scale: with
            the defaults, 0.01 is one percent of the right number.

    Raises:
        ValueError: If a parameter is out of range, or the reference holds no number.
    """

    scale: float | None = None
    cap: float = 1.0
    which: str = "last"
    tolerance: float = 0.0

    score_range: ClassVar[tuple[float, float]] = (-1.0, 0.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = -_LEAST / 2

    def __post_init__(self) -> None:
        if self.scale is not None and not _is_positive(self.scale):
            raise ValueError(
                f"numeric_error: scale is a number above 0, or None for the size of the right "
                f"number; got {self.scale!r}."
            )
        if not _is_positive(self.cap) or self.cap < _LEAST_CAP:
            raise ValueError(
                f"numeric_error: cap is a number of at least {_LEAST_CAP}, got {self.cap!r}."
            )
        check_choice("numeric_error", "which", self.which, ("first", "last"))
        if self.tolerance != 0 and not _is_positive(self.tolerance):
            raise ValueError(
                f"numeric_error: tolerance is a number of at least 0, got {self.tolerance!r}."
            )
        object.__setattr__(self, "score_range", (-float(self.cap), 0.0))
        object.__setattr__(self, "success_threshold", -self._least / 2)

    def __call__(self, text: str, reference: str) -> float:
        """Minus the capped squared error."""
        wanted = _wanted(reference, self.which)
        number = read_number(text, self.which)
        if number is None:
            return -self.cap
        error = (number - wanted) / (self.scale or abs(wanted) or 1.0)
        if abs(error) <= self.tolerance:
            return 0.0
        # A product, since a power would not overflow to inf.
        return -min(max(error * error, self._least), float(self.cap))

    @property
    def _least(self) -> float:
        return _LEAST * max(1.0, self.cap)


def read_number(text: str, which: str = "last") -> float | None:
    """The first or last number in a text; None if there is none."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return None
    number: str = numbers[0 if which == "first" else -1]
    return float(number.replace(",", "").replace("−", "-"))  # noqa: RUF001


@lru_cache(maxsize=1024)
def _wanted(reference: str, which: str) -> float:
    number = read_number(reference, which)
    if number is None or not math.isfinite(number):
        raise ValueError(
            f"numeric_error: the reference {reference!r} holds no number; give one such as '12.5'"
        )
    return number


def _is_positive(value: object) -> bool:
    return is_number(value) and 0 < value < math.inf
