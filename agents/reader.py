"""Keeping up with texts that grow by a token at a time: with a cache, or by reading them again."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache

from agents.backbone import Backbone, NextToken
from agents.cache import SlotCache


class Reader(Protocol):
    """Reads the contexts of a batch of rows as they grow.

    Attributes:
        seen: What the model says at the end of each row, n rows.
    """

    seen: NextToken

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """Give rows (k,) a new context: right-padded ids (k, T), of which `lengths` (k,) count."""
        ...

    def append(self, tokens: Tensor) -> None:
        """Write a token at the end of every row, int64 (n,)."""
        ...

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all rows but these, (k,), ascending; they become rows 0 to k - 1."""
        ...


class CachedReader:
    """Reads every token once, and keeps keys and values.

    Args:
        backbone: The model.
        num_rows: Number of rows, n.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self._cache = SlotCache(num_rows, backbone.context_length)
        self.seen = _nothing_seen(backbone, num_rows)

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """See `Reader`."""
        device = self.seen.logits.device
        columns = int(lengths.max())
        read = DynamicCache()
        last = torch.from_numpy(lengths - 1).to(device)
        every = torch.arange(len(rows), device=device)
        fresh = self._backbone.read(
            lambda hidden: hidden[every, last][:, None],
            input_ids=torch.from_numpy(input_ids[:, :columns]).to(device),
            past_key_values=read,
            use_cache=True,
        )
        self._cache.fill(rows, read, lengths)
        _put(self.seen, rows, fresh)

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        self.seen = self._backbone.read(
            _all,
            input_ids=tokens[:, None],
            past_key_values=self._cache,
            use_cache=True,
            **self._cache.append(tokens.device),
        )

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        self._cache.keep(rows)
        self.seen = _take(self.seen, rows)


class UncachedReader:
    """Reads every context again for each token, for models that no cache of ours serves.

    Args:
        backbone: The model.
        num_rows: Number of rows, n.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self.seen = _nothing_seen(backbone, num_rows)
        shape = (num_rows, backbone.context_length)
        self._ids = torch.zeros(shape, dtype=torch.long, device=self.seen.logits.device)
        self._lengths = torch.zeros_like(self._ids[:, 0])

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """See `Reader`."""
        index = torch.from_numpy(rows).to(self._ids.device)
        columns = int(lengths.max())
        self._ids[index, :columns] = torch.from_numpy(input_ids[:, :columns]).to(index.device)
        self._lengths[index] = torch.from_numpy(lengths).to(index.device)
        _put(self.seen, rows, self._read(index))

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        self._ids.scatter_(1, self._lengths[:, None], tokens[:, None])
        self._lengths += 1
        self.seen = self._read(slice(None))

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        self._ids, self._lengths = self._ids[rows], self._lengths[rows]
        self.seen = _take(self.seen, rows)

    def _read(self, rows: Tensor | slice) -> NextToken:
        columns = torch.arange(self._ids.shape[1], device=self._ids.device)
        said: NextToken = self._backbone(self._ids[rows], columns < self._lengths[rows, None])
        return said


@torch.no_grad()
def best_reader(backbone: Backbone) -> type[CachedReader] | type[UncachedReader]:
    """The cached reader, if it reads what the uncached one does.

    A name does not tell: families with sliding or local windows take the mask of the cache for
    all there is to say, and then look further back than they were trained to; nothing fails. So
    two rows of different length are read, one of them as long as rows can be and longer than any
    window, and one starts anew.
    """
    length = backbone.context_length
    long, short, again = max(length - 2, 1), max(length // 3, 1), max(length // 2, 1)
    generator = np.random.default_rng(0)
    ids = generator.integers(backbone.num_tokens, size=(3, length))
    cached, uncached = CachedReader(backbone, 2), UncachedReader(backbone, 2)
    problem: object = None
    with backbone.exact():
        try:
            for reader in (cached, uncached):
                reader.begin(np.arange(2), ids[:2], np.array([long, short]))
                for step in range(min(2, length - long)):
                    tokens = torch.from_numpy(ids[:2, step]).to(reader.seen.logits.device)
                    reader.append(tokens)
                    if step == 0:
                        reader.begin(np.array([1]), ids[2:], np.array([min(again, length - 1)]))
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError) as error:
            problem = error
        except ValueError as error:
            problem = error
    if problem is None and backbone.agree(cached.seen.logits, uncached.seen.logits):
        return CachedReader
    reason = f"raises {problem!r} with it" if problem else "gives other logits with it"
    warnings.warn(
        f"the {backbone.name} cannot be read with a cache of rows of different lengths: it "
        f"{reason}. Results are right, but rollouts read the whole text again for every token, "
        f"up to {length} times the work.",
        stacklevel=3,
    )
    return UncachedReader


def _all(hidden: Tensor) -> Tensor:
    return hidden


def _nothing_seen(backbone: Backbone, num_rows: int) -> NextToken:
    device = backbone.head.weight.device
    return NextToken(
        torch.zeros(num_rows, backbone.width, device=device),
        torch.zeros(num_rows, backbone.num_tokens, device=device),
    )


def _put(seen: NextToken, rows: NDArray[np.intp], fresh: NextToken) -> None:
    for kept, new in zip(seen, fresh, strict=True):
        kept[torch.from_numpy(rows).to(kept.device)] = new


def _take(seen: NextToken, rows: NDArray[np.intp]) -> NextToken:
    index = torch.from_numpy(rows).to(seen.logits.device)
    return NextToken(seen.hidden[index], seen.logits[index])
