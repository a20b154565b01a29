"""Attention for tokens of many rows in one sequence: each looks at its own row and at no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from agents.cache import SlotCache
from agents.models import refuse_unknown, using_attention

NAME = "textgym_slots"


class Variant(NamedTuple):
    """What families do differently.

    Attributes:
        scaling: Multiplies the scores; None for one over the square root of the width.
        window: How many tokens, its own among them, a token looks at; None for all.
        softcap: Scores are squeezed to stay below this; None to leave them.
        sinks: Of each head the score of a token that is not there and takes its share of the
            attention, (heads,); None for none.
    """

    scaling: float | None
    window: int | None
    softcap: float | None
    sinks: Tensor | None

    @property
    def fused(self) -> bool:
        """Whether PyTorch's fused attention does it."""
        return self.softcap is None and self.sinks is None


class Reading:
    """Tokens that are read at once: some rows go on by one token, others begin with a prompt.

    In the sequence the single tokens come first, then the prompts one after another, without
    padding.

    Args:
        cache: Where keys and values are.
        going_on: Rows that go on, ascending, (s,).
        beginning: Rows that begin, (k,).
        lengths: Tokens of their prompts, (k,).
        device: Where the model is.
    """

    def __init__(
        self,
        cache: SlotCache,
        going_on: NDArray[np.intp],
        beginning: NDArray[np.intp],
        lengths: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.cache = cache
        self.num_single = len(going_on)
        single = cache.lengths[going_on]
        cache.lengths[going_on] += 1
        cache.lengths[beginning] = lengths

        # Of the tokens of prompts: which prompt, and where in it.
        prompt = np.repeat(np.arange(len(lengths)), lengths)
        offset = np.arange(len(prompt)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.concatenate([going_on, beginning[prompt]])
        positions = np.concatenate([single, offset])

        def on_device(numbers: NDArray[Any]) -> Tensor:
            return torch.from_numpy(numbers).to(device)

        self.positions = on_device(positions)
        cache.place(on_device(rows), self.positions)
        ends = self.num_single + np.cumsum(lengths) - 1
        self.last = on_device(np.concatenate([np.arange(self.num_single), ends]))
        self._columns = int(single.max()) + 1 if self.num_single else 0
        everyone = self.num_single == cache.num_rows
        self._going_on = None if everyone else on_device(going_on)
        self._newest = on_device(np.maximum(cache.lengths - 1, 0))
        self._prompts = (len(lengths), int(lengths.max()) if len(lengths) else 0)
        # Prompts of one length need no padding: they are a batch as they stand.
        ragged = len(lengths) > 0 and bool((lengths != lengths[0]).any())
        self._padded = on_device(prompt * self._prompts[1] + offset) if ragged else None
        self._masks: dict[tuple[str, int | None], Tensor] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, variant: Variant
    ) -> Tensor:
        """Attention of all m tokens: query (m, heads, width) to (m, heads, width)."""
        s = self.num_single
        parts = []
        if s:
            parts.append(self._attend_single(layer, query[:s], variant))
        if s < len(query):
            parts.append(self._attend_prompts(query[s:], key[s:], value[s:], variant))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_single(self, layer: int, query: Tensor, variant: Variant) -> Tensor:
        keys, values = (
            slots[layer][:, :, : self._columns] for slots in (self.cache.keys, self.cache.values)
        )
        rows = query
        if self._going_on is not None:
            # All slots are read where they are: to pick some of them would copy them.
            rows = query.new_zeros(len(keys), *query.shape[1:])
            rows[self._going_on] = query
        # Heads that share their keys are queries of one head.
        grouped = rows.view(len(keys), keys.shape[1], -1, query.shape[2])
        mask = self._mask("single", variant.window, keys.dtype)
        # To the cache's number type, not the other way: that would convert the whole cache.
        out = _attention(grouped.to(keys.dtype), keys, values, mask, variant).flatten(1, 2)
        out = out.to(query.dtype)
        return out if self._going_on is None else out[self._going_on]

    def _attend_prompts(
        self, query: Tensor, key: Tensor, value: Tensor, variant: Variant
    ) -> Tensor:
        count, longest = self._prompts
        batch = []
        for states in (query, key, value):
            if self._padded is not None:
                padded = states.new_zeros(count * longest, *states.shape[1:])
                padded[self._padded] = states
                states = padded
            batch.append(states.view(count, longest, *states.shape[1:]).transpose(1, 2))
        query, key, value = batch
        plain = variant.fused and (variant.window is None or variant.window >= longest)
        mask = None if plain else self._mask("prompt", variant.window, query.dtype)
        out = _attention(query, key, value, mask, variant).transpose(1, 2).flatten(0, 1)
        return out if self._padded is None else out[self._padded]

    def _mask(self, kind: str, window: int | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores: 0 on what may be looked at, the least number elsewhere."""
        if (kind, window) not in self._masks:
            if kind == "single":
                at = self._newest[:, None]
                columns = torch.arange(self._columns, device=at.device)
            else:
                columns = torch.arange(self._prompts[1], device=self._newest.device)
                at = columns[:, None]
            hidden = columns > at
            if window is not None:
                hidden |= columns <= at - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=at.device)
            mask.masked_fill_(hidden, torch.finfo(dtype).min)
            self._masks[kind, window] = mask[:, None, None] if kind == "single" else mask
        return self._masks[kind, window]


_reading: ContextVar[Reading] = ContextVar("reading")


@contextmanager
def reading(model: Any, plan: Reading) -> Iterator[None]:
    """Let a model's attention look at the rows of a cache while it reads."""
    token = _reading.set(plan)
    try:
        with using_attention(model, NAME):
            yield
    finally:
        _reading.reset(token)


def _slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: (1, heads, m, width) to (1, m, heads, width)."""
    refuse_unknown(kwargs)
    query, key, value = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    layer: Any = module.layer_idx
    variant = Variant(scaling, sliding_window, softcap, s_aux)
    return _reading.get().attend(layer, query, key, value, variant)[None], None


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, variant: Variant
) -> Tensor:
    """Attention of (b, heads, q, width); without a mask a causal one."""
    if variant.fused:
        return functional.scaled_dot_product_attention(
            query,
            key.to(query.dtype),
            value.to(query.dtype),
            attn_mask=mask,
            is_causal=mask is None,
            scale=variant.scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    assert mask is not None
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if variant.scaling is None else variant.scaling
    scores = (query @ key.transpose(2, 3)) * scale
    if variant.softcap is not None:
        scores = torch.tanh(scores / variant.softcap) * variant.softcap
    scores = scores + mask
    if variant.sinks is not None:
        sinks = variant.sinks.to(scores.dtype).view(query.shape[1], -1, 1)
        scores = torch.cat([scores, sinks.expand(*scores.shape[:3], 1)], dim=3)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value


AttentionInterface.register(NAME, _slot_attention)
