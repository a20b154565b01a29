"""The dynamics of writing text: pure array functions over a batch of contexts.

A context is a prompt and the tokens written after it. Nothing here knows text, rewards or
Gymnasium: the single and the vector environment are both thin shells around these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.intp]
"""Indices of the rows of a batch that a call is about, shape (k,), ascending, each once."""

Observation: TypeAlias = dict[str, NDArray[np.int64] | NDArray[np.int8]]

# numpy takes an array of no dimension in half the time that a Python number takes it.
_ONE = np.ones((), np.int64)


@dataclass
class Contexts:
    """A batch of contexts: n rows of at most L tokens, right-padded.

    Attributes:
        input_ids: Token ids, int64 (n, L); `pad_token_id` beyond a row's length.
        attention_mask: 1 where a token stands and 0 on padding, int8 (n, L).
        lengths: Tokens in each row, prompt and completion together, int64 (n,).
        prompt_lengths: Tokens of the prompt in each row, int64 (n,).
        row_starts: Where each row begins in the flattened arrays, int64 (n,).
        pad_token_id: The id in unused positions.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int8]
    lengths: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    pad_token_id: int


def empty(num_rows: int, context_length: int, pad_token_id: int) -> Contexts:
    """A batch of `num_rows` contexts that hold nothing yet."""
    return Contexts(
        input_ids=np.full((num_rows, context_length), pad_token_id, np.int64),
        attention_mask=np.zeros((num_rows, context_length), np.int8),
        lengths=np.zeros(num_rows, np.int64),
        prompt_lengths=np.zeros(num_rows, np.int64),
        row_starts=np.arange(num_rows, dtype=np.int64) * context_length,
        pad_token_id=pad_token_id,
    )


def index(rows: Rows, num_rows: int) -> Rows | slice:
    """An index for `rows` of arrays with `num_rows` slots: a slice if these are all rows.

    A slice reads and writes in a fraction of the time that an array of indices takes.
    """
    return slice(None) if len(rows) == num_rows else rows


def begin(contexts: Contexts, rows: Rows, prompts: Sequence[NDArray[np.int64]]) -> None:
    """Start each of `rows` anew with a prompt of at most L tokens, k arrays int64 (p,)."""
    where = index(rows, len(contexts.lengths))
    lengths = np.array([len(prompt) for prompt in prompts], np.int64)
    contexts.lengths[where] = contexts.prompt_lengths[where] = lengths
    columns = np.arange(contexts.input_ids.shape[1])
    contexts.attention_mask[where] = columns < lengths[:, None]
    contexts.input_ids[where] = contexts.pad_token_id
    for row, prompt in zip(rows.tolist(), prompts, strict=True):
        contexts.input_ids[row, : len(prompt)] = prompt


def append(contexts: Contexts, rows: Rows, tokens: NDArray[np.int64]) -> None:
    """Write one token behind the last of each of `rows`; tokens int64 (k,)."""
    where = index(rows, len(contexts.lengths))
    lengths = contexts.lengths[where]
    # One flat index for both arrays costs a third of two index pairs; ravel() is a view here.
    cells = contexts.row_starts[where] + lengths
    contexts.input_ids.ravel()[cells] = tokens
    contexts.attention_mask.ravel()[cells] = 1
    contexts.lengths[where] = lengths + _ONE


def observe(contexts: Contexts) -> Observation:
    """What an agent sees of the whole batch, in arrays of its own.

    Returns:
        `input_ids` int64 (n, L), right-padded, and `attention_mask` int8 (n, L): 1 where a
        token stands, 0 on padding. The names are those of a Hugging Face model's inputs.
    """
    return {
        "input_ids": contexts.input_ids.copy(),
        "attention_mask": contexts.attention_mask.copy(),
    }


def observe_row(contexts: Contexts, row: int) -> Observation:
    """What an agent sees of one row: the arrays of `observe`, shape (L,)."""
    return {
        "input_ids": contexts.input_ids[row].copy(),
        "attention_mask": contexts.attention_mask[row].copy(),
    }
