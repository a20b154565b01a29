r"""Mean and standard deviation of numbers of which each process has some.

With $n_i$, $\bar x_i$ and $S_i = \sum (x - \bar x_i)^2$ of the parts,

$$ \bar x = \frac{\sum_i n_i \bar x_i}{\sum_i n_i}, \qquad
   S = \sum_i S_i + n_i (\bar x_i - \bar x)^2, \qquad s = \sqrt{\frac{S}{n - 1}} $$

Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def moments(numbers: NDArray[np.float32]) -> tuple[int, float, float]:
    """How many numbers (n,) there are, their mean, and the sum of squared deviations from it."""
    if not len(numbers):
        return 0, 0.0, 0.0
    mean = float(numbers.mean(dtype=np.float64))
    return len(numbers), mean, float(np.square(numbers - mean, dtype=np.float64).sum())


def merged(parts: NDArray[np.float64]) -> tuple[float, float] | None:
    """Mean and standard deviation of all parts together.

    Args:
        parts: The `moments` of each, (k, 3).

    Returns:
        Both, or None if there are less than two numbers.
    """
    counts, means, squares = parts.T
    count = counts.sum()
    if count < 2:
        return None
    mean = float((counts * means).sum() / count)
    total = (squares + counts * (means - mean) ** 2).sum()
    return mean, float(np.sqrt(total / (count - 1)))
