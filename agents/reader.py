"""Keeping up with texts that grow by a token at a time: with a cache, or by reading them again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.aligned_reader import AlignedReader
from agents.attention import Reading, reading
from agents.backbone import Backbone, NextToken
from agents.cache import SlotCache
from agents.recurrent import RecurrentForCausalLM
from agents.recurrent_reader import RecurrentReader
from agents.seen import MAX_TOKENS, nothing_seen, put, take
from agents.short_attention import LONGEST, short_attention


class Reader(Protocol):
    """Reads the contexts of a batch of rows as they grow."""

    @property
    def seen(self) -> NextToken:
        """What the model says at the end of each row, n rows."""
        ...

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

    It reads when it is asked what it has seen: the tokens of rows that go on and the prompts of
    rows that begin, in one pass. A text that has ended is not read to its end unless somebody
    asks before the next begins. On a GPU tokens are read when they are written, so that it
    computes while the environment works, and prompts in a pass of their own.

    Args:
        backbone: The model.
        num_rows: Number of rows, n.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self._cache = SlotCache(num_rows, backbone.context_length)
        self._seen = nothing_seen(backbone, num_rows)
        self._tokens = torch.zeros(num_rows, dtype=torch.long, device=self._seen.logits.device)
        self._going_on = np.zeros(num_rows, np.bool_)
        self._prompts: dict[int, NDArray[np.int64]] = {}

    @property
    def seen(self) -> NextToken:
        """What the model says at the end of each row, n rows."""
        self._catch_up()
        return self._seen

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """See `Reader`."""
        for row, ids, length in zip(rows.tolist(), input_ids, lengths.tolist(), strict=True):
            self._prompts[row] = ids[:length].copy()
        self._going_on[rows] = False

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        self._catch_up()
        self._tokens = tokens
        self._going_on[:] = True
        if tokens.device.type == "cuda":
            self._catch_up()  # so that it computes while the environment works

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        kept = set(rows.tolist())
        self._prompts = {row: ids for row, ids in self._prompts.items() if row in kept}
        self._going_on &= np.isin(np.arange(len(self._going_on)), rows)
        self._catch_up()
        self._seen = take(self._seen, rows)
        self._going_on = self._going_on[rows]
        self._cache.keep(rows)

    def _catch_up(self) -> None:
        """Read what is unread."""
        going_on = self._going_on.nonzero()[0]
        for beginning in self._portions():
            self._read(going_on, beginning)
            going_on = going_on[:0]
        if len(going_on):
            self._read(going_on, [])
        self._going_on[:] = False
        self._prompts = {}

    def _portions(self) -> Iterator[list[int]]:
        """Rows that begin, the longest prompts first, so many at a time as fit into memory."""
        rows = sorted(self._prompts, key=lambda row: len(self._prompts[row]), reverse=True)
        while rows:
            count = max(MAX_TOKENS // len(self._prompts[rows[0]]), 1)
            yield rows[:count]
            rows = rows[count:]

    def _read(self, going_on: NDArray[np.intp], beginning: list[int]) -> None:
        device = self._tokens.device
        prompts = [self._prompts[row] for row in beginning]
        lengths = np.array([len(ids) for ids in prompts], np.int64)
        plan = Reading(self._cache, going_on, np.array(beginning, np.intp), lengths, device)
        everyone = len(going_on) == self._cache.num_rows
        ids = self._tokens if everyone else self._tokens[torch.from_numpy(going_on).to(device)]
        if prompts:
            ids = torch.cat([ids, torch.from_numpy(np.concatenate(prompts)).to(device)])
        inputs = {
            "input_ids": ids[None],
            "position_ids": plan.positions[None],
            "past_key_values": self._cache,
            "use_cache": True,
        }
        within = reading(self._backbone.model, plan)
        fresh = self._backbone.read(lambda hidden: hidden[:, plan.last], inputs, within)
        if everyone:
            self._seen = fresh
        else:
            rows = np.concatenate([going_on, np.array(beginning, np.intp)])
            put(self._seen, rows, fresh)


class UncachedReader:
    """Reads every context again for each token, for models that no cache of ours serves.

    Args:
        backbone: The model.
        num_rows: Number of rows, n.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self.seen = nothing_seen(backbone, num_rows)
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
        put(self.seen, rows, self._read(index))

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        self._ids.scatter_(1, self._lengths[:, None], tokens[:, None])
        self._lengths += 1
        self.seen = self._read(slice(None))

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        self._ids, self._lengths = self._ids[rows], self._lengths[rows]
        self.seen = take(self.seen, rows)

    def _read(self, rows: Tensor | slice) -> NextToken:
        columns = torch.arange(self._ids.shape[1], device=self._ids.device)
        said: NextToken = self._backbone(self._ids[rows], columns < self._lengths[rows, None])
        return said


ReaderClass: TypeAlias = (
    "type[CachedReader] | type[AlignedReader] | type[RecurrentReader] | type[UncachedReader]"
)


@torch.no_grad()
def best_reader(backbone: Backbone) -> ReaderClass:
    """The fastest reader that reads what the uncached one does.

    A name does not tell: there are families that take no notice of our attention or of the cache,
    and nothing fails. So all read two rows of different length, one of them as long as rows can
    be, and one that starts anew.
    """
    reasons = []
    with backbone.exact():
        expected = _trial(UncachedReader(backbone, 2), backbone)
        for reader_class, whose in _candidates(backbone):
            try:
                got = _trial(reader_class(backbone, 2), backbone)
            except _UNFIT as error:
                reasons.append(f"raises {error!r} with {whose}")
                continue
            if backbone.agree(got, expected):
                if reader_class is CachedReader:
                    backbone.pluggable = _reads_short_texts(backbone)
                return reader_class
            reasons.append(f"gives other logits with {whose}")
    warnings.warn(
        f"the {backbone.name} cannot be read with a cache of rows of different lengths: it "
        f"{' and '.join(reasons)}. Results are right, but rollouts read the whole text again for "
        f"every token, up to {backbone.context_length} times the work.",
        stacklevel=3,
    )
    return UncachedReader


def _candidates(backbone: Backbone) -> list[tuple[ReaderClass, str]]:
    """Readers that may serve a model, the fastest first, and whose cache each of them has."""
    if isinstance(backbone.model, RecurrentForCausalLM):
        return [(RecurrentReader, "its own state")]
    return [(CachedReader, "ours"), (AlignedReader, "transformers' own")]


_UNFIT = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What families raise whose code expects another cache or another mask."""


def _reads_short_texts(backbone: Backbone) -> bool:
    """Whether the attention of updates gives what the model's own gives."""
    device = backbone.head.weight.device
    length = min(backbone.context_length, LONGEST)
    ids = np.random.default_rng(0).integers(backbone.num_tokens, size=(1, length))
    input_ids = torch.from_numpy(ids).to(device)
    expected = backbone(input_ids, torch.ones_like(input_ids)).logits
    within = short_attention(backbone.model, input_ids)
    try:
        got = backbone.read(lambda hidden: hidden[:, -1:], {"input_ids": input_ids}, within)
    except NotImplementedError:
        return False
    return backbone.agree(got.logits, expected)


def _trial(reader: Reader, backbone: Backbone) -> Tensor:
    """Logits of two rows after some play, (2, vocabulary)."""
    length = backbone.context_length
    long, short, again = max(length - 2, 1), max(length // 3, 1), max(length // 2, 1)
    ids = np.random.default_rng(0).integers(backbone.num_tokens, size=(3, length))
    reader.begin(np.arange(2), ids[:2], np.array([long, short]))
    for step in range(min(2, length - long)):
        reader.append(torch.from_numpy(ids[:2, step]).to(reader.seen.logits.device))
        if step == 0:
            reader.begin(np.array([1]), ids[2:], np.array([min(again, length - 1)]))
    return reader.seen.logits
