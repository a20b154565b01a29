"""Examples that are made when they are asked for, from the rows of a table on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Example
from textgym.tasks.columns import REFERENCE, Columns
from textgym.tasks.splitting import lot, sizes

Indices: TypeAlias = "range | NDArray[np.int64]"

_BATCH = 1000


class LazyExamples(Sequence[Example]):
    """Rows of a `datasets.Dataset` as examples, none of which is kept.

    Args:
        rows: The data set, which reads from disk what it is asked for.
        columns: Which columns are the prompts and the references.
        where: What the rows are, for error messages.
        indices: The rows that belong here, in this order; None for all.

    Raises:
        ValueError: If there are no rows, or a column is not there. A row that is no example is
            found when it is read; the message then names its index.
    """

    def __init__(
        self, rows: Any, columns: Columns, where: str, indices: Indices | None = None
    ) -> None:
        if len(rows) == 0:
            raise ValueError(f"{where} is empty. Name another split, or give it rows.")
        columns.check_reference(where, rows.column_names)
        self._prompt_column = columns.prompt_column(where, rows.column_names)
        self._rows = rows
        self._columns = columns
        self._where = where
        self._indices = range(len(rows)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> LazyExamples: ...

    def __getitem__(self, index: int | slice) -> Example | LazyExamples:
        if isinstance(index, slice):
            return self.take(self._indices[index])
        row = int(self._indices[index])
        return self._columns.example(f"{self._where}, row {row}", self._rows[row])

    def __iter__(self) -> Iterator[Example]:
        # Many rows at once are read several times as fast as one by one.
        for start in range(0, len(self), _BATCH):
            indices = self._indices[start : start + _BATCH]
            batch = self._rows[indices]
            for row, values in zip(indices, zip(*batch.values(), strict=True), strict=True):
                named = dict(zip(batch, values, strict=True))
                yield self._columns.example(f"{self._where}, row {row}", named)

    def bare(self) -> LazyExamples:
        """The same prompts and references, without the other columns, which may hold much."""
        wanted = (self._prompt_column, self._columns.reference)
        found = [name for name in self._rows.column_names if name in wanted]
        rows = self._rows.select_columns(found)
        return LazyExamples(rows, self._columns, self._where, self._indices)

    def take(self, indices: Indices) -> LazyExamples:
        """The examples of these rows of the table."""
        return LazyExamples(self._rows, self._columns, self._where, indices)

    def lots(self, seed: int) -> NDArray[np.uint64]:
        """What each prompt draws in the lottery of a seed, uint64 (n,); see `splitting.lot`."""
        # The other columns may hold much, and need not be read.
        prompts = LazyExamples(
            self._rows.select_columns([self._prompt_column]),
            dataclasses.replace(self._columns, reference=REFERENCE),
            self._where,
            self._indices,
        )
        drawn = (lot(example.prompt, seed) for example in prompts)
        return np.fromiter(drawn, np.uint64, len(prompts))


def hold_out_rows(
    lots: NDArray[np.uint64], fractions: Mapping[str, float]
) -> dict[str, NDArray[np.int64]]:
    """What `textgym.tasks.splitting.hold_out` does, for examples that are not in memory.

    Args:
        lots: What the prompt of each example drew, uint64 (n,).
        fractions: What to hold out, by split, each above 0.

    Returns:
        The indices of `"train"` and of each other split, ascending.
    """
    different, prompts = np.unique(lots, return_inverse=True)
    ends = np.cumsum([0, *sizes(len(different), list(fractions.values()))])
    splits = {"train": np.flatnonzero(prompts >= ends[-1])}
    for split, (start, end) in zip(fractions, pairwise(ends), strict=True):
        splits[split] = np.flatnonzero((start <= prompts) & (prompts < end))
    return splits
