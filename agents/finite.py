"""Whether weights, and what was written with them, are numbers at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.distributed.whole import whole


@torch.no_grad()
def first_non_finite(module: nn.Module) -> str | None:
    """The name of the first parameter that holds a NaN or an infinity; None if there is none.

    A policy of which this names one must not be saved over one that was good. Of a sharded one all
    processes call this.
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    # A sum is finite unless a term is not, or it overflows: one cheap look at all, and one answer
    # from the device; then a thorough one.
    sums = whole(torch.stack([parameter.sum(dtype=torch.float32) for parameter in parameters]))
    for place in (~sums.isfinite()).nonzero()[:, 0].tolist():
        if not bool(whole(parameters[place].isfinite().all())):
            name: str = names[place]
            return name
    return None


def rows_with_non_finite(numbers: NDArray[Any]) -> list[int]:
    """Indices along the first axis of an array (n, ...) where a number is a NaN or an infinity."""
    bad = ~np.isfinite(numbers)
    rows: list[int] = bad.reshape(len(numbers), -1).any(1).nonzero()[0].tolist()
    return rows
