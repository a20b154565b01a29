"""The course of a figure, in a few points however long it is, and as a row of bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class Series:
    """The course of a figure: means of equally many values each, `capacity` of them at most.

    When it is full, neighbours are joined: the whole run stays in sight, and memory stays small.

    Args:
        capacity: Points kept, an even number.

    Attributes:
        last: The value that came last.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._points: list[float] = []
        self._stride = 1
        self._rest: list[float] = []
        self.last = math.nan

    def add(self, value: float) -> None:
        """Add a value; one that is not finite shows as the last, and is no point of the course."""
        self.last = value
        if not math.isfinite(value):
            return
        self._rest.append(value)
        if len(self._rest) == self._stride:
            self._points.append(float(np.mean(self._rest)))
            self._rest = []
        if len(self._points) == self._capacity:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [(one + other) / 2 for one, other in pairs]
            self._stride *= 2

    @property
    def points(self) -> list[float]:
        """The course, first to last; the last point may be of fewer values than the others."""
        return [*self._points, float(np.mean(self._rest))] if self._rest else list(self._points)


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of bars, the lowest of them shortest and the highest full.

    Args:
        values: What to show, all finite.
        width: Columns; more values than that are averaged, and fewer are drawn out.
    """
    if not values or width < 1:
        return ""
    if len(values) > width:
        values = [float(np.mean(part)) for part in np.array_split(np.array(values), width)]
    else:
        values = [values[column * len(values) // width] for column in range(width)]
    low, high = min(values), max(values)
    bars = "▁▂▃▄▅▆▇█"
    span = (high - low) or 1.0
    return "".join(bars[round((value - low) / span * (len(bars) - 1))] for value in values)
