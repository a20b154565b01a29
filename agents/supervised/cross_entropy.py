r"""How likely a model holds texts that it did not write itself.

$$ L = -\frac{1}{m} \sum_{t=1}^{m} \log \pi(a_t \mid s_t) $$

over the m tokens that are to be learned: what it takes the model by surprise, in nats a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.backbone import Backbone
from agents.log_probs import LOGITS_BUDGET
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score
from agents.supervised.demonstrations import Demonstrations, batches
from agents.supervised.encoding import Demonstration


def cross_entropy(
    backbone: Backbone, batch: SequenceBatch, logits_budget: int = LOGITS_BUDGET
) -> Tensor:
    """The cross-entropy of each token that is to be learned, in nats, float32 (m,).

    It is that of the model itself, whatever a policy does to its logits before it draws: a
    temperature is about drawing, and a token that a filter leaves out could not be learned.

    Args:
        backbone: The model.
        batch: The texts, with m written tokens in all.
        logits_budget: Largest number of logits to hold at a time.
    """
    _, log_probs, _ = score(backbone, Sampling(), batch, logits_budget)
    return -log_probs


def imitate(
    backbone: Backbone,
    demonstrations: Demonstrations,
    num_tokens: int,
    share: float,
    max_tokens: int,
    logits_budget: int = LOGITS_BUDGET,
) -> float:
    """Add the gradient of a share of the mean cross-entropy of some texts to the parameters.

    Args:
        backbone: The model.
        demonstrations: The texts, of which some are drawn.
        num_tokens: About so many of their tokens are learned.
        share: What the loss is multiplied by.
        max_tokens: Most tokens to read at a time.
        logits_budget: Largest number of logits to hold at a time.

    Returns:
        The mean cross-entropy, in nats a token.
    """
    batches = list(demonstrations.draw(num_tokens, max_tokens, backbone.head.weight.device))
    count = sum(len(batch.tokens) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = cross_entropy(backbone, batch, logits_budget).sum() / count
        (share * loss).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


@torch.no_grad()
def mean_cross_entropy(
    backbone: Backbone,
    demonstrations: Sequence[Demonstration],
    max_tokens: int,
    logits_budget: int = LOGITS_BUDGET,
) -> float:
    """The mean cross-entropy of all tokens of some texts, in nats a token.

    Args:
        backbone: The model.
        demonstrations: The texts, at least one.
        max_tokens: Most tokens to read at a time.
        logits_budget: Largest number of logits to hold at a time.
    """
    device = backbone.head.weight.device
    total, tokens = 0.0, 0
    for batch in batches(demonstrations, max_tokens, device):
        total += float(cross_entropy(backbone, batch, logits_budget).double().sum())
        tokens += len(batch.tokens)
    return total / tokens
