r"""How many bytes a process sends in an iteration, by formula.

In a ring of k processes each hands on pieces of what there is to its neighbour. To sum up S bytes
of everyone, so that everyone has the sum (all-reduce), takes each of them two rounds:

$$ 2 \frac{k - 1}{k} S $$

to collect parts of S / k bytes of everyone (all-gather), or to keep one part of the sum each
(reduce-scatter), half of it; and to tell each other something of s bytes (a gather of objects)
(k - 1) s. One process sends nothing. Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", https://doi.org/10.1016/j.jpdc.2008.09.002.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from scale.shape import Load, Shape

FLOAT = 4
"""Bytes of a number: weights and gradients are float32, whatever layers compute in."""
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Gradients are summed up in buckets of so many bytes, at most; torch's DistributedDataParallel."""
EPISODES_LOGGED = 100
"""Episodes of each process over which SB3's figures are averaged."""
FIGURES = 9
"""Sums over tokens that PPO logs of a mini-batch."""
DOUBLE = 8
"""Bytes of a number by which processes tell each other how much they have."""
COUNTED = 6
"""Such numbers of each process and mini-batch."""
EXPLAINED = 6
"""Such numbers of each process of which the explained variance is made."""


def all_reduce(size: float, processes: int) -> float:
    """Bytes that each process sends until all have the sum of `size` bytes of each."""
    return 2 * (processes - 1) / processes * size


def all_gather(size: float, processes: int) -> float:
    """Bytes that each sends until all have the whole of `size` bytes, of which each had a part."""
    return (processes - 1) / processes * size


def gather(value: Any, processes: int) -> float:
    """Bytes that each sends to tell the others something: how long it is, and what it is."""
    return (processes - 1) * (8 + len(pickle.dumps([value])))


@dataclass(frozen=True)
class Traffic:
    """What a process sends in an iteration.

    Attributes:
        weights: Bytes of weights, where they are sharded.
        gradients: Bytes of gradients.
        figures: Bytes of all else: advantages, what is logged, how much there is.
        messages: How often all wait for each other; each takes as many hops as there are others.
    """

    weights: float
    gradients: float
    figures: float
    messages: float

    @property
    def sent(self) -> float:
        """All bytes."""
        return self.weights + self.gradients + self.figures


def replicated(shape: Shape, load: Load, processes: int, trained: int | None = None) -> Traffic:
    """Where each process has all weights, by DistributedDataParallel.

    Gradients are summed up once a mini-batch, in however many pieces it is read.

    Args:
        shape: Of the model.
        load: Of each process.
        processes: How many.
        trained: Numbers that are trained; None for all.
    """
    size = FLOAT * (shape.parameters if trained is None else trained)
    buckets = 1 + ceil(max(size - FIRST_BUCKET, 0) / BUCKET)
    figures, messages = _figures(load, processes)
    gradients = load.steps * all_reduce(size, processes)
    return Traffic(0.0, gradients, figures, messages + (2 * buckets * load.steps))


def sharded(shape: Shape, load: Load, processes: int, *, gloo: bool) -> Traffic:
    """Where each has a part of every tensor, by FSDP2.

    Layers are brought together for the forward pass of each piece, and again for its backward
    pass; embedding and head once; and all of it for a rollout. Gradients are sent after each
    piece.

    Args:
        shape: Of the model.
        load: Of each process.
        processes: How many.
        gloo: Whether parts of sums are made as gloo makes them: of the whole sum.
    """
    whole = FLOAT * shape.parameters
    in_layers = FLOAT * shape.in_layers
    pieces = load.steps * load.pieces
    weights = all_gather(whole + pieces * (whole + in_layers), processes)
    of_a_piece = all_reduce(whole, processes) if gloo else all_gather(whole, processes)
    figures, messages = _figures(load, processes)
    messages += (shape.layers + 1) * (1 + 2 * pieces) + (shape.layers + 1) * pieces
    return Traffic(weights, pieces * of_a_piece, figures, messages)


def _figures(load: Load, processes: int) -> tuple[float, float]:
    """Bytes of all that is not weights or gradients, and how often all wait for each other."""
    if processes == 1:
        return 0.0, 0.0
    episode = {"r": 1.5, "l": load.new, "t": 1.234567}
    ended = {name: np.zeros(load.rows) for name in ("score", "entropy", "length")}
    lately = [dict(episode) for _ in range(min(EPISODES_LOGGED, load.rows * 10))]
    once = [
        ("ends a rollout", (load.written, True)),
        (", ".join(ended), ended),
        ("logs its last episodes", (lately, [])),
    ]
    figures = all_reduce(FLOAT * FIGURES, processes)
    counts = all_reduce(DOUBLE * processes * COUNTED, processes)
    # Tokens of an iteration, and what the explained variance is made of.
    numbers = [all_reduce(DOUBLE * processes * some, processes) for some in (1, EXPLAINED)]
    sent = sum(gather(value, processes) for value in once) + sum(numbers)
    sent += load.steps * (figures + counts)
    # A gather is two: how long, and what. A sum has two rounds.
    return sent, 2 * len(once) + 2 * len(numbers) + load.steps * 4
