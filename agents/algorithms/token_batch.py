"""The tokens of a mini-batch: what a loss may look at, and sums over them for the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agents.distributed.processes import Processes


@dataclass(frozen=True)
class TokenBatch:
    """What a loss may look at: m tokens of a mini-batch, float32 (m,) each.

    Attributes:
        log_probs: Under the policy as it is, with gradient.
        entropies: Of the distributions that they are from, with gradient.
        values: Of the states in which they were drawn, with gradient.
        old_log_probs: Under the policy of the rollout.
        old_values: From the rollout.
        ref_log_probs: Under the reference model; 0 if there is none.
        advantages: Normalised over the mini-batch, if that is wanted.
        returns: What the critic should say.
        texts: Of which text each token is, int64 (m,), from 0. Tokens that stand after another's
            answer are counted as a text of their own.
    """

    log_probs: Tensor
    entropies: Tensor
    values: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    texts: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """Logarithm of the probability now over that in the rollout."""
        return self.log_probs - self.old_log_probs

    @property
    def text_lengths(self) -> Tensor:
        """Number of tokens of each token's text, (m,)."""
        return torch.bincount(self.texts)[self.texts]

    def sum_by_text(self, numbers: Tensor) -> Tensor:
        """Sums of numbers (m,) over the tokens of each text, at each of its tokens, (m,)."""
        sums = numbers.new_zeros(len(numbers)).index_add(0, self.texts, numbers)
        return sums[self.texts]


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

    def over(self, processes: Processes, count: int) -> TokenSums:
        """Sums over the tokens of all processes, which have the same names.

        Args:
            processes: Those that read them.
            count: How many tokens these are.
        """
        names, totals = zip(*self.totals.items(), strict=True)
        every = processes.sum(torch.stack(totals))
        return TokenSums(count, dict(zip(names, every.unbind(), strict=True)))

    def mean(self) -> dict[str, float]:
        """Means over the tokens, by name."""
        names, totals = zip(*self.totals.items(), strict=True)
        return dict(zip(names, (torch.stack(totals) / self.count).tolist(), strict=True))
