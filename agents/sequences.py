"""Texts packed into batches that a model reads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from agents.scoring import SequenceBatch


@dataclass(frozen=True)
class TokenSequence:
    """Tokens that were written one after another, and what stood before them.

    Attributes:
        context: Token ids before the first, at least one, integers (c,).
        written: Token ids that are scored, at least one, integers (w,).
        places: Where each of them stands in whatever holds all sequences, int64 (w,).
    """

    context: NDArray[np.integer]
    written: NDArray[np.integer]
    places: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Number of tokens that a model reads to score it: the last one is only predicted."""
        return len(self.context) + len(self.written) - 1


def sequence_batches(
    sequences: Iterable[TokenSequence], max_tokens: int, device: torch.device
) -> Iterator[SequenceBatch]:
    """Sequences as batches of about the same length, the longest first.

    Args:
        sequences: Which, at least one.
        max_tokens: Most tokens of a batch, padding among them; at least one sequence is in it.
            Padding is at most a 64th of it: more costs more than another batch does.
        device: Where the batches are wanted.
    """
    ordered = sorted(sequences, key=lambda sequence: sequence.length, reverse=True)
    begin, padding = 0, 0
    for end, sequence in enumerate(ordered):
        longest = ordered[begin].length
        padding += longest - sequence.length
        if (end + 1 - begin) * longest > max_tokens or padding > max_tokens // 64:
            if end > begin:
                yield _batch(ordered[begin:end], device)
            begin, padding = end, 0
    yield _batch(ordered[begin:], device)


def _batch(sequences: Sequence[TokenSequence], device: torch.device) -> SequenceBatch:
    columns = sequences[0].length
    ids = np.zeros((len(sequences), columns), np.int64)
    predicted_at = []
    for index, sequence in enumerate(sequences):
        context = len(sequence.context)
        ids[index, :context] = sequence.context
        ids[index, context : sequence.length] = sequence.written[:-1]
        predicted_at.append(np.arange(len(sequence.written)) + index * columns + context - 1)
    tokens = np.concatenate([sequence.written for sequence in sequences]).astype(np.int64)
    return SequenceBatch(
        torch.as_tensor(ids, device=device),
        torch.as_tensor(np.concatenate(predicted_at), device=device),
        torch.as_tensor(tokens, device=device),
        np.concatenate([sequence.places for sequence in sequences]),
    )
