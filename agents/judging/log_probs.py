"""What a model says of texts that are written: each is read once, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.backbone import Backbone
from agents.evaluation import Written
from agents.log_probs import LOGITS_BUDGET
from agents.sampling import Sampling
from agents.scoring import score
from agents.sequences import TokenSequence, sequence_batches

MAX_TOKENS = 8_192
"""Most tokens that are read at a time; memory and speed, never the result."""


@dataclass(frozen=True)
class Reading:
    """What a model said of one text, t tokens.

    Attributes:
        log_probs: Log-probability of every token, given all that stood before it, float32 (t,).
        values: What a value head said before each token was written, float32 (t,).
    """

    log_probs: NDArray[np.float32]
    values: NDArray[np.float32]


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
    limits = {"max_tokens": max_tokens, "logits_budget": logits_budget}
    return [each.log_probs for each in read(backbone, sampling, None, written, **limits)]


@torch.no_grad()
def read(
    backbone: Backbone,
    sampling: Sampling,
    value_head: nn.Linear | None,
    written: Sequence[Written],
    *,
    max_tokens: int = MAX_TOKENS,
    logits_budget: int = LOGITS_BUDGET,
) -> list[Reading]:
    """What a model and its value head say of every token that was written.

    Args:
        backbone: The model.
        sampling: What is done to its logits.
        value_head: Makes values of hidden states; None for values of 0.
        written: The texts, one or more.
        max_tokens: Most tokens to read at a time; at least one text is.
        logits_budget: Largest number of logits to hold at a time.

    Returns:
        A reading for each text.
    """
    ends = np.cumsum([len(each.episode.token_ids) for each in written]).tolist()
    found, values = np.zeros((2, ends[-1]), np.float32)
    sequences = [
        sequence
        for each, end in zip(written, ends, strict=True)
        for sequence in _sequences(each, end - len(each.episode.token_ids))
    ]
    for batch in sequence_batches(sequences, max_tokens, backbone.head.weight.device):
        hidden, log_probs, _ = score(backbone, sampling, batch, logits_budget)
        found[batch.places] = log_probs.cpu().numpy()
        if value_head is not None:
            values[batch.places] = value_head(hidden)[:, 0].cpu().numpy()
    parts = (np.split(numbers, ends[:-1]) for numbers in (found, values))
    return [Reading(*of_text) for of_text in zip(*parts, strict=True)]


def _sequences(written: Written, first: int) -> list[TokenSequence]:
    """The stretches of a text that were written in one go; its tokens stand from `first` on."""
    tokens = np.array(written.episode.token_ids, np.int64)
    ends = [*(begin for begin, _ in written.contexts[1:]), len(tokens)]
    return [
        TokenSequence(context, tokens[begin:end], np.arange(begin, end) + first)
        for (begin, context), end in zip(written.contexts, ends, strict=True)
    ]
