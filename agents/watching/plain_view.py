"""A run as plain lines, for files, pipes and logs of other programs."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from agents.watching.course import Course, duration, figure
from agents.wording import say


class PlainView:
    """Prints a line a rollout, and not more than one in `every` seconds.

    Args:
        console: Where to print.
        every: Seconds between two lines, at least; the last is printed all the same.
        clock: Seconds since some moment.
    """

    def __init__(
        self, console: Console, every: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._every = every
        self._clock = clock
        self._printed_at: float | None = None
        self._printed = ""

    def show(self, course: Course, *, is_last: bool = False) -> None:
        """Print a line, if it is time and there is something to tell."""
        now = self._clock()
        if self._printed_at is not None and now - self._printed_at < self._every and not is_last:
            return
        line = plain_line(course)
        if course.shown() and line != self._printed:
            say(self._console, line)
            self._printed_at, self._printed = now, line


def plain_line(course: Course) -> str:
    """Where a run is, in a line of ASCII (but for the names of rewards)."""
    parts = [f"{course.timesteps:,}/{course.total:,} tokens"]
    for column, label, series in course.shown():
        parts.append(f"{label.strip()} {figure(column, series.last)}")
    if course.rate is not None:
        parts.append(f"{course.rate:,.0f} tokens/s")
    if course.seconds_left is not None:
        parts.append(f"{duration(course.seconds_left)} left")
    return "  ".join(parts)
