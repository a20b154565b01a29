"""Examples from a stream: more than fit in memory, or than one wants to fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from textgym.tasks.base import Example
from textgym.tasks.columns import Columns
from textgym.tasks.splitting import lot

Source: TypeAlias = Callable[[np.random.Generator], Iterable[Example]]
"""All examples once, from the beginning. The generator changes their order as far as that is
possible without reading them."""


class ExampleStream:
    """Examples of a stream in an order of chance, without end; a `textgym.tasks.Stream`.

    A window of the next `buffer_size` examples is kept. A draw takes one of them, each being as
    likely, and fills its place with the next of the stream. When the stream ends, the window is
    drawn empty before the stream begins again, so that every example is drawn once in each pass.
    Examples that are far apart in the stream are not mixed: shuffle a sorted file beforehand, or
    make the window as large as the memory allows.

    A copy, by `copy` or `pickle`, begins the stream anew, with an empty window: no two
    environments share a position. `state` and `load_state` carry the position over.

    Args:
        source: The examples.
        buffer_size: The size of the window.
    """

    def __init__(self, source: Source, buffer_size: int) -> None:
        self._source = source
        self._buffer_size = buffer_size
        self._window: list[tuple[int, Example]] = []  # with their places in the pass
        self._coming: Iterator[tuple[int, Example]] = iter(())
        self._read = 0
        self._seed: int | None = None  # of this pass

    def draw(self, generator: np.random.Generator) -> Example:
        """The next example.

        Args:
            generator: Chooses the place in the window, with one number for each draw, and the
                order of each pass.

        Raises:
            ValueError: If the stream holds no example.
        """
        if not self._window:
            self._begin(generator)
        place = int(generator.random() * len(self._window))
        _, drawn = self._window[place]
        coming = next(self._coming, None)
        if coming is not None:
            self._window[place] = coming
            self._read += 1
        else:
            self._window[place] = self._window[-1]
            self._window.pop()
        return drawn

    def state(self) -> dict[str, Any]:
        """How far the stream has been read, JSON-able: places, no examples."""
        places = [place for place, _ in self._window]
        return {"seed": self._seed, "read": self._read, "window": places}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream of this source was; reads it up to there.

        Raises:
            ValueError: If the source has become shorter.
        """
        self._seed = state["seed"]
        if self._seed is None:
            self._coming, self._window = iter(()), []
            return
        self._coming = enumerate(self._source(np.random.default_rng(self._seed)))
        wanted, self._read = set(state["window"]), state["read"]
        seen = [(i, example) for i, example in islice(self._coming, self._read) if i in wanted]
        if len(seen) < len(wanted):
            raise ValueError(
                f"the stream held {self._read:,} examples when it was saved, and holds fewer now. "
                "Go on with the data that it was saved with."
            )
        by_place = dict(seen)
        self._window = [(place, by_place[place]) for place in state["window"]]

    def _begin(self, generator: np.random.Generator) -> None:
        # A generator of its own, so that the pass can be read again, however lazily it draws.
        self._seed = int(generator.integers(2**63))
        self._coming = enumerate(self._source(np.random.default_rng(self._seed)))
        self._window = list(islice(self._coming, self._buffer_size))
        self._read = len(self._window)
        if not self._window:
            raise ValueError(
                "the stream holds no example to train on. Hold out a smaller share of it, or give "
                "it more rows."
            )

    def __reduce__(self) -> tuple[type[ExampleStream], tuple[Source, int]]:
        """Copies begin anew: a stream that is being read can be neither copied nor sent."""
        return type(self), (self._source, self._buffer_size)


@dataclass(frozen=True)
class StreamedRows:
    """The rows of a `datasets.IterableDataset` as examples: a `Source`.

    Attributes:
        rows: The data set.
        columns: Which columns are the prompts and the references.
        where: What the rows are, for error messages.
        fractions: The shares of the prompts that are left out, by the split that has them.
        seed: Chooses which prompts these are.
    """

    rows: Any
    columns: Columns
    where: str
    fractions: Mapping[str, float]
    seed: int

    def __call__(self, generator: np.random.Generator) -> Iterator[Example]:
        """All examples that are not held out, once.

        Args:
            generator: Chooses the order of the files of a data set that has several.
        """
        for example in self.read(generator):
            if held_out_for(example.prompt, self.fractions, self.seed) is None:
                yield example

    def read(self, generator: np.random.Generator | None = None) -> Iterator[Example]:
        """All examples once, those among them that are held out."""
        rows, row_name = self.rows, "row"
        if generator is not None and rows.num_shards > 1:
            # For the order of the files: `ExampleStream` mixes the rows. A smaller buffer is slow.
            rows = rows.shuffle(seed=int(generator.integers(2**31)), buffer_size=100)
            row_name = "files in an order of chance, row"
        for index, row in enumerate(rows):
            if index == 0:
                self.columns.check_reference(self.where, row)
            yield self.columns.example(f"{self.where}, {row_name} {index}", row)

    def held_out(self, count: int) -> dict[str, tuple[Example, ...]]:
        """The first examples that are held out for each split, at most `count` for each."""
        if not self.fractions:
            return {}
        found: dict[str, list[Example]] = {split: [] for split in self.fractions}
        for example in self.read():
            split = held_out_for(example.prompt, self.fractions, self.seed)
            if split is not None and len(found[split]) < count:
                found[split].append(example)
                if all(len(examples) == count for examples in found.values()):
                    break
        return {split: tuple(examples) for split, examples in found.items()}


def held_out_for(prompt: str, fractions: Mapping[str, float], seed: int) -> str | None:
    """The split that a prompt is held out for, None if for none.

    This looks at nothing but the prompt, so that it takes no memory of others: of many prompts,
    each split gets its fraction within what chance allows.
    """
    place = lot(prompt, seed) / 2**64
    for split, fraction in fractions.items():
        if place < fraction:
            return split
        place -= fraction
    return None
