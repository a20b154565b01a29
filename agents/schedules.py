"""Settings that change in the course of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from stable_baselines3.common.type_aliases import Schedule

from textgym.registry import did_you_mean

ScheduleSpec: TypeAlias = float | str
"""A number for all of a run, or what `make` reads as a schedule; JSON-able."""


def _check_numbers(schedule: object, *values: float) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{schedule} has a value that is no finite number: {value}.")


@dataclass(frozen=True)
class Linear:
    r"""From one value to another in a straight line, and then that one.

    $$ v(x) = start + \min(x / fraction, 1) (end - start) $$

    x being the part of the run that is over. This is SB3's `LinearSchedule`.

    Args:
        start: The value at the beginning.
        end: The value that is reached.
        fraction: The part of the run in which it is reached, above 0 and at most 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    start: float
    end: float
    fraction: float = 1.0

    def __post_init__(self) -> None:
        _check_numbers(self, self.start, self.end)
        if not 0 < self.fraction <= 1:
            raise ValueError(
                "fraction is the part of the run in which end is reached, above 0 and at most 1, "
                f"got {self.fraction}."
            )

    def __call__(self, progress_remaining: float) -> float:
        """The value; `progress_remaining` goes from 1 to 0."""
        if progress_remaining <= 1 - self.fraction:
            return self.end
        return self.start + (1 - progress_remaining) * (self.end - self.start) / self.fraction


@dataclass(frozen=True)
class Stages:
    """One value first, and then another.

    Args:
        first: The value at the beginning.
        then: The value after it.
        fraction: The part of the run after which it changes, above 0 and below 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    first: float
    then: float
    fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_numbers(self, self.first, self.then)
        if not 0 < self.fraction < 1:
            raise ValueError(
                "fraction is the part of the run after which the value changes, above 0 and below "
                f"1, got {self.fraction}."
            )

    def __call__(self, progress_remaining: float) -> float:
        """The value; `progress_remaining` goes from 1 to 0."""
        return self.first if progress_remaining > 1 - self.fraction else self.then


EXPLORE_THEN_EXPLOIT = Stages(1.3, 0.8)
"""A temperature that looks for texts which pay, and then writes more of those."""

PRESETS: dict[str, Schedule] = {"explore-then-exploit": EXPLORE_THEN_EXPLOIT}
"""Schedules that have a name; this one is for temperatures."""

_KINDS: dict[str, tuple[Callable[..., Schedule], str]] = {
    "linear": (Linear, "START:END"),
    "stages": (Stages, "FIRST:THEN"),
}

_EXAMPLES = (
    "0.7, 'linear:1.3:0.7' (from 1.3 to 0.7), 'linear:1.3:0.7:0.5' (in the first half of the run), "
    "'stages:1.3:0.7' (1.3 in the first half, then 0.7), 'stages:1.3:0.7:0.2' (in the first fifth)"
)


def make(spec: ScheduleSpec | Schedule) -> float | Schedule:
    """A number, or a schedule in SB3's form, as a person says it.

    Args:
        spec: A number; `"linear:START:END"` or `"stages:FIRST:THEN"`, with `":FRACTION"` behind
            it if need be; the name of a preset; or a schedule, which is returned as it is.

    Raises:
        TypeError: If it is something else.
        ValueError: If a text is none of these, or a number is out of its range.
    """
    if isinstance(spec, str):
        return _read(spec)
    if callable(spec):
        return spec
    if isinstance(spec, bool) or not isinstance(spec, (int, float)):
        raise TypeError(f"expected a number or a schedule, such as {_EXAMPLES}; got {spec!r}.")
    if not math.isfinite(spec):
        raise ValueError(f"expected a finite number, got {spec}.")
    return float(spec)


def initial(schedule: ScheduleSpec | Schedule) -> float:
    """The value at the beginning of a run; for arguments and errors see `make`."""
    return _at(1.0, schedule)


def final(schedule: ScheduleSpec | Schedule) -> float:
    """The value at the end of a run; for arguments and errors see `make`."""
    return _at(0.0, schedule)


def _at(progress_remaining: float, schedule: ScheduleSpec | Schedule) -> float:
    made = make(schedule)
    return made if isinstance(made, float) else made(progress_remaining)


def _read(text: str) -> float | Schedule:
    if text in PRESETS:
        return PRESETS[text]
    kind, *parts = text.split(":")
    if kind in _KINDS and len(parts) in (2, 3):
        schedule, form = _KINDS[kind]
        try:
            return schedule(*map(float, parts))
        except ValueError as error:
            raise ValueError(f"{text!r} is no {kind}:{form}[:FRACTION]: {error}") from error
    if parts or kind in _KINDS:
        raise ValueError(
            f"{text!r} is no schedule: expected a number, linear:START:END[:FRACTION] or "
            f"stages:FIRST:THEN[:FRACTION]; for instance {_EXAMPLES}."
        )
    try:
        number = float(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no number and no schedule, for instance {_EXAMPLES}. Of schedules that "
            f"have a name {did_you_mean(text, PRESETS)}."
        ) from None
    return make(number)
