"""How sure a mean, a rate or a ratio of means is: intervals at 95%.

Samples are independent of each other: of several texts for a prompt give their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from textgym.arms import t_quantile

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, and where it may lie.

    Attributes:
        value: The estimate; NaN of no samples.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def map(self, function: Callable[[float], float]) -> Estimate:
        """The estimate of an increasing function of the number."""
        return Estimate(function(self.value), function(self.low), function(self.high))


def mean(samples: ArrayLike) -> Estimate:
    r"""The mean of n samples with Student's interval.

    $$ \bar x \pm t_{n-1} \frac{s}{\sqrt n} $$

    One sample has no interval.
    """
    values = np.asarray(samples, np.float64)
    if not len(values):
        return Estimate(math.nan)
    center = float(values.mean())
    if len(values) == 1:
        return Estimate(center)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    width = t_quantile((1 + LEVEL) / 2, len(values) - 1) * error
    return Estimate(center, center - width, center + width)


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    r"""The ratio of two sums over the same n units, by linearisation.

    $$ R = \frac{\sum_i x_i}{\sum_i y_i}, \qquad
       R \pm t_{n-1} \frac{s_d}{\sqrt n}, \quad d_i = \frac{x_i - R y_i}{\bar y} $$

    Source: W. G. Cochran, Sampling Techniques, 3rd edition, 1977, section 6.4.
    """
    x, y = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if not y.sum():
        return Estimate(math.nan)
    value = float(x.sum() / y.sum())
    # The residuals' mean is 0.
    around = mean((x - value * y) / y.mean())
    return Estimate(value, value + around.low, value + around.high)


def rate(shares: ArrayLike) -> Estimate:
    r"""How often something is so, with Wilson's interval.

    $$ \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n} $$

    Args:
        shares: How often it was so for each of n prompts, from 0 to 1. For shares between them
            the interval is wider than need be, since such vary less than yes and no do.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    Journal of the American Statistical Association 22, 1927.
    """
    values = np.asarray(shares, np.float64)
    count = len(values)
    if not count:
        return Estimate(math.nan)
    share = float(values.mean())
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    center = share + z**2 / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    # At shares of 0 and 1 an end is the share itself, but for rounding.
    low, high = max((center - width) / scale, 0.0), min((center + width) / scale, 1.0)
    return Estimate(share, min(low, share), max(high, share))
