"""Intervals are those of the books, and hold what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from agents.judging import intervals
from agents.judging.intervals import Estimate


@pytest.mark.parametrize("count", [2, 3, 4, 11, 58, 59, 300, 501, 100_001])
def test_a_mean_is_scipys(count):
    samples = np.random.default_rng(count).normal(3, 2, count)
    estimate = intervals.mean(samples)
    expected = stats.t.interval(0.95, count - 1, samples.mean(), stats.sem(samples))
    assert estimate.value == pytest.approx(samples.mean())
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-5)


def test_a_mean_by_hand():
    # s = 1, t = 4.3027 with 2 degrees of freedom
    estimate = intervals.mean([1.0, 2.0, 3.0])
    assert estimate.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert estimate.low == pytest.approx(4 - estimate.high)


def test_one_sample_has_a_mean_and_no_interval():
    estimate = intervals.mean([2.5])
    assert estimate.value == 2.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    for nothing in (intervals.mean([]), intervals.rate([]), intervals.ratio([], [])):
        assert math.isnan(nothing.value)


@pytest.mark.parametrize(("successes", "count"), [(0, 12), (5, 12), (12, 12), (1, 1), (70, 400)])
def test_a_rate_is_scipys(successes, count):
    estimate = intervals.rate([True] * successes + [False] * (count - successes))
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert estimate.value == successes / count
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.low <= estimate.value <= estimate.high


def test_a_ratio_is_of_sums_and_its_interval_that_of_a_bootstrap():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 40, 400).astype(float)
    sums = lengths * generator.normal(3, 0.5, 400) + generator.normal(0, 1, 400)
    estimate = intervals.ratio(sums, lengths)
    assert estimate.value == pytest.approx(sums.sum() / lengths.sum())
    drawn = generator.integers(400, size=(4_000, 400))
    resampled = sums[drawn].sum(1) / lengths[drawn].sum(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    width = high - low
    assert estimate.low == pytest.approx(low, abs=0.1 * width)
    assert estimate.high == pytest.approx(high, abs=0.1 * width)


def test_a_ratio_of_equal_units_is_a_mean():
    samples = [0.3, 0.5, 1.0, 0.1]
    of_pairs, of_units = intervals.mean(np.divide(samples, 4)), intervals.ratio(samples, [4.0] * 4)
    expected = (of_pairs.value, of_pairs.low, of_pairs.high)
    assert (of_units.value, of_units.low, of_units.high) == pytest.approx(expected)


def test_a_function_maps_the_ends_too():
    assert Estimate(1.0, 0.0, 2.0).map(lambda x: 10**x) == Estimate(10.0, 1.0, 100.0)
