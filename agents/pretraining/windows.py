"""From documents to training windows: one long stream of tokens, and where to cut it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


def token_stream(tokenizer: Tokenizer, documents: Sequence[str]) -> NDArray[np.int64]:
    """All documents as `<eos> document <eos> document ... <eos>`, shape `(tokens,)`.

    Args:
        tokenizer: Puts the end-of-text token in front of what it encodes.
        documents: The texts.
    """
    encodings = [*tokenizer.encode_batch(list(documents)), tokenizer.encode("")]
    return np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])


def windows_per_epoch(tokens: int, context: int) -> int:
    """How many windows `epoch_windows` cuts from a stream of `tokens` tokens."""
    return max(0, (tokens - 1) // context - 1)


def epoch_windows(
    stream: NDArray[np.int64], context: int, eos: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Where the windows of one epoch start, in random order.

    A grid of step `context` and random offset. Every point of it moves on to the next start of a
    document, and from there back to the one before, each time only if that is within half a
    window. So most windows begin as a prompt does, at the start of a document, and long documents
    are still seen to their end.

    Args:
        stream: Token ids, shape `(tokens,)`.
        context: Tokens that the model sees.
        eos: Id of the token that starts every document.
        rng: Draws the offset and the order.

    Returns:
        Start indices, shape `(windows_per_epoch,)`; for each, `start + context` is still in the
        stream, being the label of the last token that the model sees.
    """
    count = windows_per_epoch(len(stream), context)
    starts = rng.integers(context) + context * np.arange(count)
    documents = np.flatnonzero(stream == eos)
    if len(documents) > 0:
        after = np.searchsorted(documents, starts).clip(max=len(documents) - 1)
        before = (after - 1).clip(min=0)
        for target in (documents[after], documents[before]):
            reachable = np.abs(target - starts) <= context // 2
            inside = target + context < len(stream)
            starts = np.where(reachable & inside, target, starts)
    return rng.permutation(starts)


def cut(stream: NDArray[np.int64], starts: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Windows of `context` inputs and one more label, shape `(len(starts), context + 1)`."""
    windows: NDArray[np.int64] = stream[starts[:, None] + np.arange(context + 1)]
    return windows
