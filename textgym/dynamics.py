"""The dynamics of writing text: pure array functions over a batch of contexts.

A context is a prompt and the tokens written after it. Nothing here knows text, rewards or
Gymnasium: the single and the vector environment are both thin shells around these functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.intp]
"""Indices of the rows of a batch that a call is about, shape (k,)."""

Observation: TypeAlias = dict[str, NDArray[np.int64] | NDArray[np.int8]]


@dataclass
class Contexts:
    """A batch of contexts: n rows of at most L tokens, right-padded.

    Attributes:
        input_ids: Token ids, int64 (n, L); `pad_token_id` beyond a row's length.
        lengths: Tokens in each row, prompt and completion together, int64 (n,).
        prompt_lengths: Tokens of the prompt in each row, int64 (n,).
        pad_token_id: The id in unused positions.
    """

    input_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    pad_token_id: int


def empty(num_rows: int, context_length: int, pad_token_id: int) -> Contexts:
    """A batch of `num_rows` contexts that hold nothing yet."""
    return Contexts(
        input_ids=np.full((num_rows, context_length), pad_token_id, np.int64),
        lengths=np.zeros(num_rows, np.int64),
        prompt_lengths=np.zeros(num_rows, np.int64),
        pad_token_id=pad_token_id,
    )


def begin(contexts: Contexts, row: int, prompt_ids: NDArray[np.int64]) -> None:
    """Start a row anew with a prompt of at most L tokens, int64 (p,)."""
    length = len(prompt_ids)
    ids = contexts.input_ids[row]
    ids[:length] = prompt_ids
    ids[length:] = contexts.pad_token_id
    contexts.lengths[row] = contexts.prompt_lengths[row] = length


def append(contexts: Contexts, rows: Rows, tokens: NDArray[np.int64]) -> None:
    """Write one token behind the last of each of `rows`; tokens int64 (k,)."""
    lengths = contexts.lengths[rows]
    contexts.input_ids[rows, lengths] = tokens
    lengths += 1
    contexts.lengths[rows] = lengths


def observe(contexts: Contexts) -> Observation:
    """What an agent sees of the whole batch, in arrays of its own.

    Returns:
        `input_ids` int64 (n, L), right-padded, and `attention_mask` int8 (n, L): 1 where a
        token stands, 0 on padding. The names are those of a Hugging Face model's inputs.
    """
    columns = np.arange(contexts.input_ids.shape[1])
    return {
        "input_ids": contexts.input_ids.copy(),
        "attention_mask": np.less(columns, contexts.lengths[:, None]).view(np.int8),
    }


def observe_row(contexts: Contexts, row: int) -> Observation:
    """What an agent sees of one row: the arrays of `observe`, shape (L,)."""
    columns = np.arange(contexts.input_ids.shape[1])
    return {
        "input_ids": contexts.input_ids[row].copy(),
        "attention_mask": np.less(columns, contexts.lengths[row]).view(np.int8),
    }
