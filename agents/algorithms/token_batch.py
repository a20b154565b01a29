"""The tokens of a mini-batch: what a loss may look at, and sums over them for the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """What a loss may look at: m tokens of a mini-batch, float32 (m,) each.

    Attributes:
        log_probs: Under the policy as it is, with gradient.
        entropies: Of the distributions that they are from, with gradient.
        values: Of the states in which they were drawn, with gradient.
        old_log_probs: Under the policy of the rollout.
        old_values: From the rollout.
        advantages: Normalised over the mini-batch, if that is wanted.
        returns: What the critic should say.
    """

    log_probs: Tensor
    entropies: Tensor
    values: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """Logarithm of the probability now over that in the rollout."""
        return self.log_probs - self.old_log_probs


@dataclass(frozen=True)
class TokenSums:
    """Sums over tokens. They stay on their device until a mean is asked for.

    Attributes:
        count: Number of tokens.
        totals: Sums by name.
    """

    count: int = 0
    totals: Mapping[str, Tensor] = field(default_factory=dict)

    def __add__(self, other: TokenSums) -> TokenSums:
        """Sums over the tokens of both."""
        names = self.totals.keys() | other.totals.keys()
        zero = torch.zeros(())
        return TokenSums(
            self.count + other.count,
            {n: self.totals.get(n, zero) + other.totals.get(n, zero) for n in sorted(names)},
        )

    def mean(self) -> dict[str, float]:
        """Means over the tokens, by name."""
        names, totals = zip(*self.totals.items(), strict=True)
        return dict(zip(names, (torch.stack(totals) / self.count).tolist(), strict=True))
