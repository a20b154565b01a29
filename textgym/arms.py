"""What is known of the values that one source gives: mean, spread, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

Interval: TypeAlias = tuple[float, float]
"""Its lower and its upper end."""


@lru_cache(maxsize=1024)  # with a discount, degrees of freedom are ever new ones
def t_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t distribution, to about 1e-6 of its value.

    Args:
        probability: Of a value below the quantile, above 0.5 and below 1.
        degrees: Degrees of freedom, at least 1, not necessarily whole.
    """
    # Beyond this it is the normal distribution's to seven digits, and lgamma loses its own.
    degrees = min(degrees, 1e7)
    # With t = sqrt(v) tan(x), P(0 < T < t) is the integral of c cos(x)^(v - 1), which is smooth.
    c = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def is_below(t: float) -> bool:
        half = math.atan(t / math.sqrt(degrees)) / 2
        integral = float(weights @ np.cos(half * (nodes + 1)) ** (degrees - 1)) * half
        return c * integral < probability - 0.5

    low = NormalDist().inv_cdf(probability)
    while is_below(2 * low):
        low *= 2
    high = 2 * low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return high


@dataclass
class Arm:
    """What is known of an arm's values: their number, mean and spread, old ones counting less.

    Updated by Welford's method with weights, so that no large sums are subtracted.

    Attributes:
        count: How many values there were.
        weight: What their weights add up to; `count` if nothing was discounted. It is the sample
            size in all estimates, so that an interval widens as its evidence ages.
        mean: Their weighted mean; 0 if there are none.
        squares: The weighted sum of their squared distances from the mean.
    """

    count: int = 0
    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take a value in, with weight 1."""
        self.count += 1
        self.weight += 1.0
        distance = value - self.mean
        self.mean += distance / self.weight
        self.squares += distance * (value - self.mean)

    def discount(self, factor: float) -> None:
        """Multiply all weights by a factor."""
        self.weight *= factor
        self.squares *= factor

    def merged(self, other: Arm) -> Arm:
        """The statistics of the values of both (Chan et al. 1979)."""
        weight = self.weight + other.weight
        if not weight:
            return Arm(self.count + other.count)
        distance = other.mean - self.mean
        share = other.weight / weight
        return Arm(
            self.count + other.count,
            weight,
            self.mean + distance * share,
            self.squares + other.squares + distance**2 * self.weight * share,
        )

    @property
    def variance(self) -> float:
        """The unbiased variance; NaN for a weight of 1 or less."""
        return self.squares / (self.weight - 1) if self.weight > 1 else math.nan

    def interval(self, confidence: float = 0.95, floor: float = 0.0) -> Interval | None:
        """A confidence interval of the mean by Student's t, or None if the evidence is too little.

        Args:
            confidence: How probable it is that the interval holds the mean, from 0 to 1.
            floor: The least that the variance is taken to be.
        """
        if self.weight < 2:
            return None
        error = math.sqrt(max(self.variance, floor) / self.weight)
        half = t_quantile((1 + confidence) / 2, self.weight - 1) * error
        return self.mean - half, self.mean + half

    def difference(
        self, other: Arm, confidence: float = 0.95, floor: float = 0.0
    ) -> Interval | None:
        """A confidence interval of this mean less the other's (Welch 1947), or None as `interval`.

        With v = variance / weight of each, the degrees of freedom of t are
        (v1 + v2)^2 / (v1^2 / (weight1 - 1) + v2^2 / (weight2 - 1)).
        """
        if min(self.weight, other.weight) < 2:
            return None
        v1, v2 = (max(arm.variance, floor) / arm.weight for arm in (self, other))
        between, total = self.mean - other.mean, v1 + v2
        if not total:
            return between, between
        # Shares and not squares of v, which could leave the range of floats.
        share1, share2 = v1 / total, v2 / total
        degrees = 1 / (share1**2 / (self.weight - 1) + share2**2 / (other.weight - 1))
        half = t_quantile((1 + confidence) / 2, degrees) * math.sqrt(total)
        return between - half, between + half


@dataclass(frozen=True)
class ArmSummary:
    """One line of a report.

    Attributes:
        arm: Index of the arm.
        count: How many results it had.
        mean: Mean of its results; None if it had none. With a discount, what to expect of it now.
        low: Lower end of the mean's confidence interval; None if there are too few results.
        high: Upper end.
    """

    arm: int
    count: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Winner:
    """The arm with the highest mean, and whether that is more than noise.

    Attributes:
        arm: Index of the arm.
        rival: The arm that it is least surely better than; most often the second best.
        difference: By how much its mean is the higher one.
        low: Lower end of the difference's confidence interval.
        high: Upper end.
    """

    arm: int
    rival: int
    difference: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out, so that it is better than every other arm."""
        return self.low > 0
