r"""How likely a model holds texts that it did not write itself.

$$ L = -\frac{1}{m} \sum_{t=1}^{m} \log \pi(a_t \mid s_t) $$

over the m tokens that are to be learned: what it takes the model by surprise, in nats a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from agents.backbone import Backbone
from agents.distributed.learner import Piece
from agents.log_probs import LOGITS_BUDGET
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score
from agents.supervised.demonstrations import batches
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


class Imitation:
    """A share of the mean cross-entropy of some texts, as a part of a loss.

    Args:
        backbone: The model.
        batches: The texts.
        share: What the loss is multiplied by.
        count: Tokens that the mean is over, those that other processes read among them.
        logits_budget: Largest number of logits to hold at a time.
    """

    def __init__(
        self,
        backbone: Backbone,
        batches: Sequence[SequenceBatch],
        share: float,
        count: int,
        logits_budget: int = LOGITS_BUDGET,
    ) -> None:
        self._backbone = backbone
        self._share = share
        self._count = count
        self._logits_budget = logits_budget
        self._losses: list[Tensor] = []
        self.pieces: list[Piece] = [partial(self._loss, batch) for batch in batches]

    @property
    def mean(self) -> float:
        """This process's part of the mean cross-entropy, in nats a token, once it was read."""
        return sum(loss.item() for loss in self._losses)

    def _loss(self, batch: SequenceBatch, weight: float) -> Tensor:
        loss = cross_entropy(self._backbone, batch, self._logits_budget).sum() / self._count
        if weight > 0:
            self._losses.append(loss.detach())
        return weight * self._share * loss


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
