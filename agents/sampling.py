"""From logits to the distribution over the next token that a policy really draws from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """What is done to a model's logits before a token is drawn.

    It belongs to the policy and not to the act of drawing: rollout, update and reference model
    all see the same distribution. With a filter alone in the rollout the ratio of PPO and the KL
    to a reference would compare things that are not alike.

    Args:
        temperature: Divides the logits.
        top_k: Only the k likeliest tokens are drawn; 0 for all.
        top_p: Only the likeliest tokens that together have this probability; 1 for all.
        allowed: Ids of the tokens that may be drawn at all, among which the filters choose; None
            for all. This is the action space's to say; see `settings`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    allowed: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}. For the likeliest token "
                "each time predict with deterministic=True."
            )
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is a number of tokens, or 0 for all, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if self.allowed is not None:
            ids = tuple(sorted({int(i) for i in self.allowed}))
            if not ids or ids[0] < 0:
                raise ValueError(
                    "allowed are the ids of one token or more, none of them below 0, or None for "
                    f"all tokens, got {self.allowed!r}."
                )
            object.__setattr__(self, "allowed", ids)

    def settings(self) -> dict[str, Any]:
        """What a policy is told of it: all but `allowed`, which a policy's action space says."""
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}

    def warp(self, logits: Tensor, taken: Tensor | None = None) -> Tensor:
        """Logits of the distribution that is drawn from.

        Args:
            logits: The model's own, float32 (n, vocabulary).
            taken: Tokens that were drawn, int64 (n,). They stay in even where another model, or
                the same one after some updates, would have filtered them out, and where somebody
                else wrote them who may write other tokens: their probability would be 0, and
                their log-probability of no use.

        Returns:
            float32 (n, vocabulary); the least finite number for what is never drawn.
        """
        if self.temperature != 1:
            logits = logits / self.temperature
        filtered = None if self.allowed is None else self._not_allowed(logits)
        if 0 < self.top_k < logits.shape[-1]:
            rest = logits if filtered is None else _without(logits, filtered)
            least = rest.topk(self.top_k, dim=-1).values[:, -1:]
            filtered = (rest < least) | (False if filtered is None else filtered)
        if self.top_p < 1:
            rest = logits if filtered is None else _without(logits, filtered)
            ordered, order = rest.softmax(-1).sort(dim=-1, descending=True)
            before = ordered.cumsum(-1) - ordered  # the first that reaches top_p is still in
            filtered = torch.zeros_like(rest, dtype=torch.bool).scatter(
                1, order, before >= self.top_p
            ) | (False if filtered is None else filtered)
        if filtered is None:
            return logits
        if taken is not None:
            filtered = filtered.expand_as(logits).scatter(1, taken[:, None], False)
        return _without(logits, filtered)

    def _not_allowed(self, logits: Tensor) -> Tensor:
        """Which tokens may never be drawn, bool (1, vocabulary), where the logits are."""
        key = logits.device, logits.shape[-1]
        if key not in self._masks:
            # A rollout may ask first, and what an update learns through must be made outside of it.
            with torch.inference_mode(False):
                mask = torch.ones(1, logits.shape[-1], dtype=torch.bool)
                mask[0, list(self.allowed or ())] = False
                self._masks[key] = mask.to(logits.device)
        return self._masks[key]

    @cached_property
    def _masks(self) -> dict[tuple[torch.device, int], Tensor]:
        return {}


def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token from each row, by inverting the cumulative distribution.

    One random number a row; an exponential for each entry, as `torch.multinomial` takes them,
    costs more than the softmax.

    Args:
        logits: float32 (n, vocabulary).

    Returns:
        Tokens int64 (n,) and their log-probabilities float32 (n,), NaN where the logits are no
        numbers.
    """
    probabilities = logits.softmax(-1)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Below the total even if the product is rounded up to it: there is no token beyond.
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(total * torch.rand_like(total), below)
    tokens = torch.searchsorted(cumulative, target, right=True)
    # No number is above a NaN: gather would fail, and on a GPU for good.
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0], probabilities.gather(1, tokens)[:, 0].log()


def _without(logits: Tensor, filtered: Tensor) -> Tensor:
    """The least number instead of minus infinity: 0 * -inf would make an entropy NaN."""
    # In half the time of masked_fill.
    return torch.where(filtered, torch.finfo(logits.dtype).min, logits)
