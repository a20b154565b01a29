"""Keeping up with texts that grow as `generate` does, for families with attention of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.aligned_cache import AlignedCache
from agents.backbone import Backbone, NextToken
from agents.seen import MAX_TOKENS, nothing_seen, put, take


class AlignedReader:
    """Reads every token once, and keeps keys, values and states in transformers' own cache.

    It needs nothing of a family but what `generate` needs. Prompts are read apart from the texts
    that go on, those of one length together, so that no state runs through padding. At each token
    the cache is copied, and texts that have ended are read on until their next begins;
    `agents.reader.CachedReader` does neither.

    Args:
        backbone: The model.
        num_rows: Number of rows, n.

    Attributes:
        seen: What the model says at the end of each row, n rows.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self.seen = nothing_seen(backbone, num_rows)
        self._lengths = np.zeros(num_rows, np.int64)
        self._cache: AlignedCache | None = None

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """See `Reader`."""
        for some in _portions(lengths):
            ids = self._on_device(input_ids[some, : lengths[some[0]]])
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            fresh = AlignedCache(self._backbone.model.config)
            put(self.seen, rows[some], self._read(ids, positions, fresh, None))
            index = self._on_device(rows[some])
            if self._cache is None:
                self._cache = fresh
                fresh.spread(index, len(self._lengths))
            else:
                self._cache.put(index, fresh)
        self._lengths[rows] = lengths
        self._cut_off()

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        assert self._cache is not None
        positions = self._on_device(self._lengths)[:, None]
        self._lengths = self._lengths + 1
        mask = None
        if self._cache.has_columns:
            columns = int(self._lengths.max())
            mask = torch.arange(columns, device=tokens.device) >= columns - 1 - positions
        self.seen = self._read(tokens[:, None], positions, self._cache, mask)

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        self._lengths, self.seen = self._lengths[rows], take(self.seen, rows)
        if self._cache is not None and len(rows):
            self._cache.keep(self._on_device(rows))
            self._cut_off()

    def _read(
        self, ids: Tensor, positions: Tensor, cache: AlignedCache, mask: Tensor | None
    ) -> NextToken:
        inputs = {
            "input_ids": ids,
            "position_ids": positions,
            "attention_mask": None if mask is None else mask.long(),
            "past_key_values": cache,
            "cache_params": cache,  # as Mamba calls it
            "use_cache": True,
        }
        return self._backbone.read(lambda hidden: hidden[:, -1:], inputs)

    def _cut_off(self) -> None:
        assert self._cache is not None
        self._cache.cut_off(int(self._lengths.max()))

    def _on_device(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.seen.logits.device)


def _portions(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Prompts of one length each, so many at a time as fit into memory."""
    for length in np.unique(lengths):
        same = (lengths == length).nonzero()[0]
        count = max(MAX_TOKENS // int(length), 1)
        for first in range(0, len(same), count):
            yield same[first : first + count]
