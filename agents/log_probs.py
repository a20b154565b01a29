"""Log-probability and entropy of many tokens at once, without an array of all their logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_BUDGET = 2**24
"""Logits that are held at a time, unless told otherwise: 64 MB in float32."""


def log_probs_and_entropy(
    to_logits: Callable[[Tensor, Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    vocab_size: int,
    budget: int = LOGITS_BUDGET,
) -> tuple[Tensor, Tensor]:
    r"""Log-probability of each token and entropy of the distribution that it is from.

    $$ \log \pi(a) = z_a - \log \sum_v e^{z_v}, \qquad
       H = -\sum_v \pi(v) \log \pi(v) $$

    Where all logits z would be more than `budget`, they are made in chunks and made again in the
    backward pass. Results and both gradients are the same, but for rounding.

    Args:
        to_logits: Makes logits, float32 (k, vocabulary), of k hidden states and their tokens.
        hidden: What the head reads, (n, width).
        tokens: int64 (n,).
        vocab_size: Number of logits of a token.
        budget: Largest number of logits to hold at a time; at least those of one token are.

    Returns:
        Log-probabilities and entropies in nats, float32 (n,) each.
    """
    size = max(budget // vocab_size, 1)

    def score(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = to_logits(hidden, tokens)
        return _LogProbAndEntropy.apply(logits, tokens)  # type: ignore[no-any-return, no-untyped-call]

    if len(tokens) <= size:
        return score(hidden, tokens)
    chunks = zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
    scored = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
    log_probs, entropies = zip(*scored, strict=True)
    return torch.cat(log_probs), torch.cat(entropies)


class _LogProbAndEntropy(torch.autograd.Function):
    r"""Both from logits, with few passes over them: for small models these passes are what costs.

    $$ \frac{\partial \log \pi(a)}{\partial z_v} = [v = a] - \pi(v), \qquad
       \frac{\partial H}{\partial z_v} = -\pi(v) (\log \pi(v) + H) $$
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = logits.softmax(-1)
        # log Z, from the likeliest token: a third of the time of logsumexp.
        largest = logits.amax(-1, keepdim=True)
        log_of_largest = probabilities.amax(-1, keepdim=True).log()
        # H = log Z - E[z]
        mean = torch.linalg.vecdot(probabilities, logits)[:, None]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, probabilities, mean, tokens)
        chosen = logits.gather(1, tokens[:, None])
        log_probs = (chosen - largest) + log_of_largest
        return log_probs[:, 0], (largest - mean - log_of_largest)[:, 0]

    @staticmethod
    def backward(
        ctx: Any, for_log_prob: Tensor | None, for_entropy: Tensor | None
    ) -> tuple[Tensor | None, None]:
        logits, probabilities, mean, tokens = ctx.saved_tensors
        gradient = None
        if for_entropy is not None:
            # log p + H is z - log Z + log Z - E[z], which is z - E[z].
            gradient = (mean - logits).mul_(probabilities).mul_(for_entropy[:, None])
        if for_log_prob is not None:
            for_log_prob = for_log_prob[:, None]
            if gradient is None:
                gradient = probabilities * -for_log_prob
            else:
                gradient.addcmul_(probabilities, for_log_prob, value=-1)
            gradient.scatter_add_(1, tokens[:, None], for_log_prob)
        return gradient, None
