"""One pass of a model over a whole text says what it thought of each of its tokens."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.backbone import Backbone
from agents.log_probs import log_probs_and_entropy
from agents.sampling import Sampling
from agents.short_attention import short_attention


@dataclass(frozen=True)
class SequenceBatch:
    """Segments as a model reads them, b sequences with m written tokens in all.

    Attributes:
        input_ids: int64 (b, T), right-padded. Of a causal model nothing that comes later can
            change what is said of a token, so that no mask is needed.
        predicted_at: Where each of the written tokens is predicted: the place of the one before
            it among all b T, int64 (m,).
        tokens: The written tokens, int64 (m,).
        places: Where they stand in the buffer, int64 (m,): step * n + row.
    """

    input_ids: Tensor
    predicted_at: Tensor
    tokens: Tensor
    places: NDArray[np.int64]

    @property
    def texts(self) -> Tensor:
        """Of which of the b sequences each of the written tokens is, int64 (m,)."""
        return self.predicted_at // self.input_ids.shape[1]


def score(
    backbone: Backbone, sampling: Sampling, batch: SequenceBatch, logits_budget: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Score the written tokens of some texts ("teacher forcing").

    Args:
        backbone: The model.
        sampling: What is done to its logits.
        batch: The texts, with m written tokens in all.
        logits_budget: Largest number of logits to hold at a time.

    Returns:
        What the head reads before each written token, float32 (m, width); the tokens'
        log-probabilities and the entropies of the distributions that they are from, (m,) each.
    """
    # Layers that are computed again in the backward pass would find another attention then.
    fast = backbone.pluggable and not backbone.gradient_checkpointing
    with short_attention(backbone.model, batch.input_ids) if fast else nullcontext():
        hidden = backbone.hidden_states(
            lambda hidden: hidden.flatten(0, 1).index_select(0, batch.predicted_at)[None],
            {"input_ids": batch.input_ids},
        )
    log_probs, entropies = log_probs_and_entropy(
        lambda hidden, tokens: sampling.warp(backbone.logits(hidden), tokens),
        hidden,
        batch.tokens,
        backbone.num_tokens,
        logits_budget,
    )
    return hidden, log_probs, entropies
