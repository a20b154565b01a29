"""What readers keep of the rows of a batch: what the model said at the end of each."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from agents.backbone import Backbone, NextToken

MAX_TOKENS = 16_384
"""Tokens of prompts that are read at a time, were they all as long as the longest."""


def nothing_seen(backbone: Backbone, num_rows: int) -> NextToken:
    """Zeros for rows that were not read yet."""
    device = backbone.head.weight.device
    return NextToken(
        torch.zeros(num_rows, backbone.width, device=device),
        torch.zeros(num_rows, backbone.num_tokens, device=device),
    )


def put(seen: NextToken, rows: NDArray[np.intp], fresh: NextToken) -> None:
    """Replace what was seen of some rows, (k,), in place."""
    for kept, new in zip(seen, fresh, strict=True):
        kept[torch.from_numpy(rows).to(kept.device)] = new


def take(seen: NextToken, rows: NDArray[np.intp]) -> NextToken:
    """What was seen of some rows, (k,)."""
    index = torch.from_numpy(rows).to(seen.logits.device)
    return NextToken(seen.hidden[index], seen.logits[index])
