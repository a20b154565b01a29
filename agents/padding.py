"""Right-padded rows, as environments give them, moved to where models want them."""

from __future__ import annotations

import torch
from torch import Tensor


def left_padded(input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
    """Move every row's tokens to the right edge and drop the columns that hold none.

    The last token of each row is then in the last column, and the model runs on as many columns
    as the longest row has tokens.

    Args:
        input_ids: int64 (n, L), right-padded.
        attention_mask: (n, L).

    Returns:
        `input_ids`, `attention_mask` and `position_ids`, int64 (n, T), left-padded; positions
        count from each row's first token.

    Raises:
        ValueError: If a row does not begin with a token.
    """
    lengths = attention_mask.long().sum(dim=1, keepdim=True)
    begins = attention_mask[:, :1].long()
    columns, all_begin = torch.stack([lengths.max(), begins.min()]).tolist()
    if not all_begin:
        raise ValueError(
            f"row {int(begins.argmin())} of attention_mask does not begin with 1. Rows hold at "
            "least one token and are padded on the right, as TextGen-v0 gives them."
        )
    index = torch.arange(columns, device=input_ids.device) - (columns - lengths)
    positions = index.clamp(min=0)
    return {
        "input_ids": input_ids.gather(1, positions),
        "attention_mask": (index >= 0).long(),
        "position_ids": positions,
    }
