r"""Weights and targets that change as training goes on.

A curriculum sets the terms on which an episode is paid when it begins, and they hold to its end.
With the score $s$ of a reward, its weight $w$, and the factor $f$ and the bar $b$ of the terms,
the rewards of an episode add up to

$$ w f \left(\min(s, b) - \min(0, b)\right). $$

So immediate and delayed reward stay one objective, which drifts from one episode to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Terms(NamedTuple):
    """On what terms a reward is paid.

    Attributes:
        factor: Times its weight.
        bar: Up to which its score counts.
    """

    factor: float = 1.0
    bar: float = math.inf


class Curriculum(Protocol):
    """Sets the terms of the rewards in a weighted sum."""

    def terms(self) -> Mapping[str, Terms]:
        """The terms of the episodes that begin now, by the names of the rewards."""

    def observe(self, num_tokens: int, finished: Mapping[str, NDArray[np.float64]]) -> None:
        """Some tokens were written, and the scores of the episodes that ended, (m,) each."""

    def state_dict(self) -> dict[str, Any]:
        """All that `terms` depends on, JSON-able."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
