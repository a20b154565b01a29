"""What a model says of texts that are written: each is read once, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from agents.backbone import Backbone
from agents.buffer import Segment, TokenRolloutBuffer
from agents.evaluation import Written
from agents.log_probs import LOGITS_BUDGET
from agents.sampling import Sampling
from agents.scoring import score

MAX_TOKENS = 8_192
"""Most tokens that are read at a time; memory and speed, never the result."""


@torch.no_grad()
def log_probs(
    backbone: Backbone,
    sampling: Sampling,
    written: Sequence[Written],
    *,
    max_tokens: int = MAX_TOKENS,
    logits_budget: int = LOGITS_BUDGET,
) -> list[NDArray[np.float32]]:
    """Log-probability of every token that was written, given all that stood before it.

    Args:
        backbone: The model.
        sampling: What is done to its logits.
        written: The texts.
        max_tokens: Most tokens to read at a time; at least one text is.
        logits_budget: Largest number of logits to hold at a time.

    Returns:
        For each text, one number a token, in nats.
    """
    lengths = [len(each.episode.token_ids) for each in written]
    vocabulary = spaces.Discrete(backbone.num_tokens)
    device = backbone.head.weight.device
    buffer = TokenRolloutBuffer(
        max(lengths), vocabulary, vocabulary, device=device, n_envs=len(written)
    )
    segments = []
    for row, each in enumerate(written):
        buffer.actions[: lengths[row], row] = each.episode.token_ids
        begins = [begin for begin, _ in each.contexts]
        ends = [*begins[1:], lengths[row]]
        for (begin, context), end in zip(each.contexts, ends, strict=True):
            segments.append(Segment(row, begin, end, context))
    for batch in buffer.sequence_batches(segments, max_tokens):
        _, found, _ = score(backbone, sampling, batch, logits_budget)
        buffer.log_probs.reshape(-1)[batch.places] = found.cpu().numpy()
    return [buffer.log_probs[:length, row].copy() for row, length in enumerate(lengths)]
