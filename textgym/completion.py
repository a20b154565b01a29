"""What a reward may look at: prompts, references, and the completions written so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.dynamics import Contexts
from textgym.tasks.base import Example
from textgym.tokenizer import TextStream, Tokenizer


class Sample(NamedTuple):
    """One completion, as a score function sees it.

    Attributes:
        prompt: The prompt's text, whole even where its tokens were cut to fit.
        text: The completion's text.
        reference: The task's reference text for this prompt, if it has one.
        token_ids: The completion's token ids, an end-of-text token included.
        columns: Whatever else the task knows of this prompt, by column name.
    """

    prompt: str
    text: str
    reference: str | None
    token_ids: list[int]
    columns: Mapping[str, Any]


class Completions:
    """The completions of a batch of n rows, each as far as it is written.

    Rewards get this object on every call and read the rows that they are asked about. Text is
    decoded only when it is asked for, and then only what is new.

    Args:
        contexts: The batch's tokens, kept up to date by the environment.
        tokenizer: Decodes them.
        max_new_tokens: The budget of one completion, in tokens.

    Attributes:
        examples: The prompt, reference and columns of each row, n items.
        ended: Rows whose episode ends with the token just written, bool (n,).
    """

    def __init__(self, contexts: Contexts, tokenizer: Tokenizer, max_new_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.num_rows = len(contexts.lengths)
        self.examples: list[Example] = [Example("")] * self.num_rows
        self.ended = np.zeros(self.num_rows, np.bool_)
        self._contexts = contexts
        self._streams: list[TextStream | None] = [None] * self.num_rows
        self._texts = [""] * self.num_rows
        self._decoded = [0] * self.num_rows

    def begin(self, row: int, example: Example) -> None:
        """Forget a row's last completion; called once its new prompt is in the contexts."""
        self.examples[row] = example
        self.ended[row] = False
        self._streams[row] = None
        self._texts[row] = ""
        self._decoded[row] = 0

    def lengths(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Tokens written in each of `rows`, an end-of-text token included, int64 (k,)."""
        contexts = self._contexts
        written: NDArray[np.int64] = contexts.lengths[rows] - contexts.prompt_lengths[rows]
        return written

    def token_ids(self, row: int) -> NDArray[np.int64]:
        """The tokens written in a row, int64 (t,); a view that the next token outdates."""
        contexts = self._contexts
        return contexts.input_ids[row, contexts.prompt_lengths[row] : contexts.lengths[row]]

    def text(self, row: int) -> str:
        """The text written in a row.

        While the row goes on, bytes of a character that is not whole yet are held back; once it
        has ended, the text is exactly what its token ids decode to.
        """
        new_ids = self.token_ids(row)[self._decoded[row] :].tolist()
        ended = self.ended[row]
        stream = self._streams[row]
        if new_ids or (ended and stream is not None):
            if stream is None:
                stream = self._streams[row] = self._stream(row)
            self._decoded[row] += len(new_ids)
            self._texts[row] = stream.push(new_ids)
            if ended:
                self._texts[row] = stream.finish()
                self._streams[row] = None
        return self._texts[row]

    def pieces(self, row: int) -> list[str]:
        """The text that each token of a row added, t items; "" for part of a character."""
        stream = self._stream(row)
        texts = [stream.push([token_id]) for token_id in self.token_ids(row).tolist()]
        if texts and self.ended[row]:
            texts[-1] = stream.finish()
        starts = [0, *map(len, texts[:-1])]
        return [text[start:] for start, text in zip(starts, texts, strict=True)]

    def sample(self, row: int, text_length: int | None = None) -> Sample:
        """A row as a score function sees it, or only its first `text_length` characters."""
        example = self.examples[row]
        text = self.text(row)
        token_ids: list[int] = self.token_ids(row).tolist()
        if text_length is not None and text_length < len(text):
            text = text[:text_length]
            ends = accumulate(map(len, self.pieces(row)))
            token_ids = token_ids[: sum(end <= text_length for end in ends)]
        return Sample(example.prompt, text, example.reference, token_ids, example.columns)

    def _stream(self, row: int) -> TextStream:
        contexts = self._contexts
        prompt_ids = contexts.input_ids[row, : contexts.prompt_lengths[row]]
        return self.tokenizer.stream(prompt_ids)

    def samples(self, rows: NDArray[np.intp]) -> Sequence[Sample]:
        """`sample` of each of `rows`."""
        return [self.sample(row) for row in rows.tolist()]
