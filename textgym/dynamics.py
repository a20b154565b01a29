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
_STANDS = np.ones((), np.int8)


@dataclass
class Contexts:
    """A batch of contexts: n rows of at most L tokens, right-padded.

    Places are counted through all rows: column c of row r is place r L + c, which is where it
    stands in the flattened arrays.

    Attributes:
        input_ids: Token ids, int64 (n, L); `pad_token_id` beyond a row's end.
        attention_mask: 1 where a token stands and 0 on padding, int8 (n, L).
        starts: The first place of each row, int64 (n,).
        prompt_ends: The place behind the last token of each prompt, int64 (n,).
        ends: The place behind the last token of each row, where the next goes, int64 (n,).
        pad_token_id: The id in unused places.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int8]
    starts: NDArray[np.int64]
    prompt_ends: NDArray[np.int64]
    ends: NDArray[np.int64]
    pad_token_id: int


def empty(num_rows: int, context_length: int, pad_token_id: int) -> Contexts:
    """A batch of `num_rows` contexts that hold nothing yet."""
    starts = np.arange(num_rows, dtype=np.int64) * context_length
    return Contexts(
        input_ids=np.full((num_rows, context_length), pad_token_id, np.int64),
        attention_mask=np.zeros((num_rows, context_length), np.int8),
        starts=starts,
        prompt_ends=starts.copy(),
        ends=starts.copy(),
        pad_token_id=pad_token_id,
    )


def index(rows: Rows, num_rows: int) -> Rows | slice:
    """An index for `rows` of arrays with `num_rows` slots: a slice if these are all rows.

    A slice reads and writes in a fraction of the time that an array of indices takes.
    """
    return slice(None) if len(rows) == num_rows else rows


def begin(contexts: Contexts, rows: Rows, prompts: Sequence[NDArray[np.int64]]) -> None:
    """Start each of `rows` anew with a prompt of at most L tokens, k arrays int64 (p,)."""
    where = index(rows, len(contexts.ends))
    input_ids, attention_mask = contexts.input_ids, contexts.attention_mask
    starts, prompt_ends, ends = contexts.starts, contexts.prompt_ends, contexts.ends
    input_ids[where] = contexts.pad_token_id
    attention_mask[where] = 0
    for row, prompt in zip(rows.tolist(), prompts, strict=True):
        length = len(prompt)
        input_ids[row, :length] = prompt
        attention_mask[row, :length] = _STANDS
        prompt_ends[row] = ends[row] = starts[row] + length


def append(contexts: Contexts, rows: Rows | slice, tokens: NDArray[np.int64]) -> None:
    """Write one token at the end of each of `rows`, or all in a slice; tokens int64 (k,)."""
    ends = contexts.ends[rows]
    # The arrays are contiguous, so that ravel() gives views of them.
    contexts.input_ids.ravel()[ends] = tokens
    contexts.attention_mask.ravel()[ends] = _STANDS
    contexts.ends[rows] = ends + _ONE


def extend(contexts: Contexts, row: int, tokens: Sequence[int]) -> None:
    """Write several tokens at the end of one row, for which there must be room."""
    end = contexts.ends[row] + len(tokens)
    contexts.input_ids.ravel()[contexts.ends[row] : end] = tokens
    contexts.attention_mask.ravel()[contexts.ends[row] : end] = _STANDS
    contexts.ends[row] = end


def room(contexts: Contexts, row: int) -> int:
    """How many tokens still fit into a row."""
    length = contexts.input_ids.shape[1]
    return int(contexts.starts[row] + length - contexts.ends[row])


def prompt_ids(contexts: Contexts, row: int) -> NDArray[np.int64]:
    """The tokens of a row's prompt, int64 (p,); a view."""
    return contexts.input_ids.ravel()[contexts.starts[row] : contexts.prompt_ends[row]]


def completion_ids(contexts: Contexts, row: int) -> NDArray[np.int64]:
    """The tokens written after a row's prompt, int64 (t,); a view that the next outdates."""
    return contexts.input_ids.ravel()[contexts.prompt_ends[row] : contexts.ends[row]]


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


def observe_rows(contexts: Contexts, rows: Rows) -> list[Observation]:
    """What an agent sees of each of `rows`: k observations of arrays (L,)."""
    # take() copies all of them at once, three times faster than an index does.
    input_ids = contexts.input_ids.take(rows, axis=0)
    attention_mask = contexts.attention_mask.take(rows, axis=0)
    return [
        {"input_ids": ids, "attention_mask": mask}
        for ids, mask in zip(input_ids, attention_mask, strict=True)
    ]
