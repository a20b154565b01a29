"""The course of a figure in a few points, and as bars."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.watching.series import Series, sparkline


def test_a_short_course_is_kept_as_it_is() -> None:
    series = Series(capacity=8)
    for value in (3.0, 1.0, 2.0):
        series.add(value)
    assert series.points == [3.0, 1.0, 2.0]
    assert series.last == 2.0


@given(st.integers(1, 2000))
def test_a_long_course_is_means_of_equally_many_values(count: int) -> None:
    series = Series(capacity=16)
    values = np.arange(count, dtype=float) ** 2
    for value in values:
        series.add(float(value))
    points = series.points
    assert len(points) <= 16
    stride = next(2**power for power in range(12) if count // 2**power < 16)
    parts = [values[at : at + stride] for at in range(0, count, stride)]
    assert points == pytest.approx([part.mean() for part in parts])


def test_what_is_no_number_is_the_last_and_no_point() -> None:
    series = Series()
    series.add(1.0)
    series.add(math.nan)
    assert math.isnan(series.last)
    assert series.points == [1.0]


def test_bars() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0], 4) == "▁▂▃█"
    assert sparkline([5.0], 3) == "▁▁▁"
    assert sparkline([0.0, 1.0], 6) == "▁▁▁███"
    assert sparkline([0.0, 0.0, 7.0, 7.0], 2) == "▁█"
    assert sparkline([], 9) == ""
    assert sparkline([1.0], 0) == ""


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300), st.integers(1, 80))
def test_bars_fill_the_width(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == width
