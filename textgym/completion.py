"""What a reward may look at: prompts, references, and the completions written so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym import dynamics
from textgym.dynamics import Contexts, Rows, index
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
        ended: Rows whose episode ended with the token just written, or never began, bool (n,).
    """

    def __init__(self, contexts: Contexts, tokenizer: Tokenizer, max_new_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.num_rows = len(contexts.ends)
        self.examples: list[Example] = [Example("")] * self.num_rows
        self.ended = np.ones(self.num_rows, np.bool_)
        self._contexts = contexts
        self._streams: list[TextStream | None] = [None] * self.num_rows
        self._texts = [""] * self.num_rows
        self._decoded = np.zeros(self.num_rows, np.int64)  # the places up to which texts are made

    def begin(self, rows: Rows, examples: Sequence[Example]) -> None:
        """Forget the last completions of `rows`; their new prompts are in the contexts by now."""
        self.ended[index(rows, self.num_rows)] = False
        for row, example in zip(rows.tolist(), examples, strict=True):
            self.examples[row] = example
            self._streams[row] = None

    def lengths(self, rows: Rows) -> NDArray[np.int64]:
        """Tokens written in each of `rows`, an end-of-text token included, int64 (k,)."""
        where = index(rows, self.num_rows)
        contexts = self._contexts
        written: NDArray[np.int64] = contexts.ends[where] - contexts.prompt_ends[where]
        return written

    def token_ids(self, row: int) -> NDArray[np.int64]:
        """The tokens written in a row, int64 (t,); a view that the next token outdates."""
        return dynamics.completion_ids(self._contexts, row)

    def text(self, row: int) -> str:
        """The text written in a row.

        While the row goes on, bytes of a character that is not whole yet are held back; once it
        has ended, the text is exactly what its token ids decode to behind the prompt.
        """
        contexts, stream, ended = self._contexts, self._streams[row], self.ended[row]
        if stream is None:
            if ended and self.tokenizer.is_byte_level:  # at once, when nobody read it before
                return self.tokenizer.decode(self.token_ids(row))
            stream = self._streams[row] = self.tokenizer.stream(dynamics.prompt_ids(contexts, row))
            self._decoded[row], self._texts[row] = contexts.prompt_ends[row], ""
        decoded, end = self._decoded[row], contexts.ends[row]
        if decoded < end:
            new_ids: list[int] = contexts.input_ids.ravel()[decoded:end].tolist()
            self._decoded[row], self._texts[row] = end, stream.push(new_ids)
        return stream.finish() if ended else self._texts[row]

    def pieces(self, row: int) -> list[str]:
        """The text that each token of a row added, t items; "" for part of a character."""
        ended = bool(self.ended[row])
        prompt_ids = dynamics.prompt_ids(self._contexts, row)
        return self.tokenizer.pieces(prompt_ids, self.token_ids(row).tolist(), ended=ended)

    def sample(self, row: int, text_length: int | None = None) -> Sample:
        """A row as a score function sees it, or only its first `text_length` characters."""
        example = self.examples[row]
        text = self.text(row)
        token_ids: list[int] = self.token_ids(row).tolist()
        if text_length is not None and text_length < len(text):
            text = text[:text_length]
            ends = list(accumulate(map(len, self.pieces(row)), initial=0))
            within = sum(start < text_length >= end for start, end in pairwise(ends))
            token_ids = token_ids[:within]
        return Sample(example.prompt, text, example.reference, token_ids, example.columns)

    def samples(self, rows: Rows) -> Sequence[Sample]:
        """`sample` of each of `rows`."""
        return [self.sample(row) for row in rows.tolist()]
