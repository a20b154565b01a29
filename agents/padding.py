"""Right-padded rows, as environments give them, cut down to what models need to read."""

from __future__ import annotations

import torch
from torch import Tensor


def without_surplus(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the columns that hold padding only.

    Args:
        input_ids: int64 (n, L), right-padded.
        attention_mask: (n, L).

    Returns:
        As many columns as the longest row has tokens, int64 (n, T), and how many of them are each
        row's, int64 (n,).

    Raises:
        ValueError: If a row does not begin with a token.
    """
    lengths = attention_mask.long().sum(dim=1)
    begins = attention_mask[:, 0].long()
    columns, all_begin = torch.stack([lengths.max(), begins.min()]).tolist()
    if not all_begin:
        raise ValueError(
            f"row {int(begins.argmin())} of attention_mask does not begin with 1. Rows hold at "
            "least one token and are padded on the right, as TextGen-v0 gives them."
        )
    return input_ids[:, :columns], lengths
