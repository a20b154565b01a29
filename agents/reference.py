"""The model as it was before training, from which the policy shall not stray too far."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from agents.log_probs import LOGITS_BUDGET
from agents.models import has_adapter, without_adapter
from agents.policy import TransformerPolicyMixin
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score


class Reference(nn.Module):
    """A frozen copy of a policy's model; or the model itself with its adapter switched off.

    Args:
        policy: The policy, before its training.
    """

    def __init__(self, policy: TransformerPolicyMixin) -> None:
        super().__init__()
        if has_adapter(policy.backbone.model):
            self._shared = [policy.backbone]  # in a list: its weights are the policy's to keep
        else:
            self._shared = []
            self.backbone = copy.deepcopy(policy.backbone).requires_grad_(False)

    @torch.no_grad()
    def log_probs(
        self, sampling: Sampling, batch: SequenceBatch, logits_budget: int = LOGITS_BUDGET
    ) -> Tensor:
        """Log-probabilities of the m written tokens of a batch, float32 (m,).

        Args:
            sampling: The policy's, so that like is compared with like.
            batch: The texts.
            logits_budget: Largest number of logits to hold at a time.
        """
        for backbone in self._shared:
            with without_adapter(backbone.model):
                return score(backbone, sampling, batch, logits_budget)[1]
        return score(self.backbone, sampling, batch, logits_budget)[1]
