"""The best token most of the time, and now and then any."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from agents.language_policy import LanguagePolicy
from agents.sampler import Draw, Sampler


class EpsilonGreedySampler(Sampler):
    """A sampler that takes any token by chance, now and then, and else the best.

    Args:
        policy: The policy.
        num_rows: Number of rows, n.
        allowed: Token ids that may be written, int64 (k,).
        epsilon: Says how often chance decides, by now.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        num_rows: int,
        allowed: Tensor,
        epsilon: Callable[[], float],
    ) -> None:
        super().__init__(policy, num_rows)
        self._allowed = allowed
        self._epsilon = epsilon

    def sample(self, *, deterministic: bool = False) -> Draw:
        """The next token of every row."""
        greedy = super().sample(deterministic=True)
        if deterministic:
            return greedy
        epsilon = self._epsilon()
        tokens = explored(greedy.tokens, self._allowed, epsilon)
        probability = epsilon / len(self._allowed) + (1 - epsilon) * (tokens == greedy.tokens)
        return Draw(tokens, probability.log(), greedy.values)


def explored(greedy: Tensor, allowed: Tensor, epsilon: float) -> Tensor:
    """Tokens of which each is, with a chance of epsilon, replaced by any that is allowed.

    Args:
        greedy: The best, int64 (n,).
        allowed: Those that chance draws from, int64 (k,).
        epsilon: From 0 to 1.
    """
    explores = torch.rand(greedy.shape, device=greedy.device) < epsilon
    anything = allowed[torch.randint(len(allowed), greedy.shape, device=greedy.device)]
    return torch.where(explores, anything, greedy)
