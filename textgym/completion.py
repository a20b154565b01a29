"""What a reward may look at: prompts, references, and the completions written so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
        text: The completion's text: what the model wrote, in all its turns.
        reference: The task's reference text for this prompt, if it has one.
        token_ids: The completion's token ids, an end-of-text token included.
        columns: Whatever else the task knows of this prompt, by column name.
        turns: In a task of several turns, what the model wrote in each of those that are over,
            without space around it.
        continues: Whether the text goes on where the prompt ends: not in a chat, nor where a
            template puts something behind the prompt.
    """

    prompt: str
    text: str
    reference: str | None
    token_ids: list[int]
    columns: Mapping[str, Any]
    turns: Sequence[str] = ()
    continues: bool = True


@dataclass
class _Past:
    """The turns of an episode that are over.

    Attributes:
        begins: The place in the contexts where the turn that goes on begins.
        turns: What the model wrote in each.
        text: All of it, each turn on a line of its own.
        token_ids: Its tokens.
        pieces: The text that each of them added.
        replies: What was said between them, and after how many tokens of the model's.
    """

    begins: int
    turns: list[str] = field(default_factory=list)
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    replies: list[tuple[int, str]] = field(default_factory=list)


class Completions:
    """The completions of a batch of n rows, each as far as it is written.

    Rewards get this object on every call and read the rows that they are asked about. Text is
    decoded only when it is asked for, and then only what is new. What others say between the
    turns of the model is no part of its completion.

    Args:
        contexts: The batch's tokens, kept up to date by the environment.
        tokenizer: Decodes them.
        max_new_tokens: The budget of one completion, in tokens.
        max_reply_tokens: The most tokens that are answered in an episode.
        end_ids: Tokens that end a text or a turn; None for the tokenizer's end-of-text token.

    Attributes:
        examples: The prompt, reference and columns of each row, n items.
        ended: Rows whose episode ended with the token just written, or never began, bool (n,).
        is_end: Whether a token ends a text or a turn, bool (vocabulary,).
        replied: Tokens in each row's context with which the model was answered, int64 (n,).
    """

    def __init__(
        self,
        contexts: Contexts,
        tokenizer: Tokenizer,
        max_new_tokens: int,
        max_reply_tokens: int = 0,
        end_ids: Collection[int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.num_rows = len(contexts.ends)
        self._max_reply_tokens = max_reply_tokens
        if end_ids is None:
            end_ids = [i for i in (tokenizer.eos_token_id,) if i is not None]
        self.is_end: NDArray[np.bool_] = np.isin(np.arange(tokenizer.vocab_size), list(end_ids))
        self._continues = np.ones(self.num_rows, np.bool_)
        self.examples: list[Example] = [Example("")] * self.num_rows
        self.ended = np.ones(self.num_rows, np.bool_)
        self._contexts = contexts
        self._streams: list[TextStream | None] = [None] * self.num_rows
        self._texts = [""] * self.num_rows
        self._decoded = np.zeros(self.num_rows, np.int64)  # the places up to which texts are made
        self._past: dict[int, _Past] = {}  # of rows whose first turn is over
        self.replied = np.zeros(self.num_rows, np.int64)

    def begin(
        self, rows: Rows, examples: Sequence[Example], continues: Sequence[bool] | None = None
    ) -> None:
        """Forget the last completions of `rows`; their new prompts are in the contexts by now.

        Args:
            rows: Whose episodes begin, int (k,).
            examples: Of each.
            continues: Whether texts go on where prompts end, of each; None if all do.
        """
        where = index(rows, self.num_rows)
        self.ended[where] = False
        self._continues[where] = True if continues is None else continues
        for row, example in zip(rows.tolist(), examples, strict=True):
            self.examples[row] = example
            self._streams[row] = None
        if self._past:
            self.replied[rows] = 0
            for row in rows.tolist():
                self._past.pop(row, None)

    def end_turn(self, row: int) -> list[str]:
        """Note that the model's turn in a row is over.

        Returns:
            What it wrote in each turn so far, without space around it.
        """
        past = self._past.setdefault(row, _Past(int(self._contexts.prompt_ends[row])))
        pieces, token_ids = self._turn_pieces(row, ended=True), self.turn_ids(row).tolist()
        past.turns.append("".join(pieces).strip())
        if not "".join(pieces).endswith("\n"):
            pieces[-1] += "\n"
        past.pieces += pieces
        past.text += "".join(pieces)
        past.token_ids += token_ids
        self._begin_turn(row, past)
        return past.turns

    def add_reply(self, row: int, reply: str, num_tokens: int) -> None:
        """Note what was said after a turn, which is in the context now, so many tokens of it."""
        past = self._past[row]
        past.replies.append((len(past.token_ids), reply))
        self.replied[row] += num_tokens
        self._begin_turn(row, past)

    def replies(self, row: int) -> list[tuple[int, str]]:
        """What was said between the turns of a row, and after how many of the model's tokens."""
        return list(self._past[row].replies) if row in self._past else []

    def _begin_turn(self, row: int, past: _Past) -> None:
        past.begins = int(self._contexts.ends[row])
        self._streams[row] = None

    def continues(self, row: int) -> bool:
        """Whether the text of a row goes on where its prompt ends."""
        return bool(self._continues[row])

    def lengths(self, rows: Rows) -> NDArray[np.int64]:
        """Tokens written in each of `rows`, an end-of-text token included, int64 (k,)."""
        where = index(rows, self.num_rows)
        contexts = self._contexts
        written: NDArray[np.int64] = contexts.ends[where] - contexts.prompt_ends[where]
        return written - self.replied[where] if self._past else written

    def token_ids(self, row: int) -> NDArray[np.int64]:
        """The tokens written in a row, int64 (t,); a view that the next token outdates."""
        turn_ids = self.turn_ids(row)
        if row not in self._past:
            return turn_ids
        return np.concatenate([np.array(self._past[row].token_ids, np.int64), turn_ids])

    def turn_ids(self, row: int) -> NDArray[np.int64]:
        """The tokens of the turn that goes on, int64 (t,); of tasks of one turn, all of them."""
        if row not in self._past:
            return dynamics.completion_ids(self._contexts, row)
        contexts = self._contexts
        return contexts.input_ids.ravel()[self._past[row].begins : contexts.ends[row]]

    def context_ids(self, row: int) -> NDArray[np.int64]:
        """All that stands in a row: prompt, what was written, and what was answered, int64 (l,)."""
        contexts = self._contexts
        return contexts.input_ids.ravel()[contexts.starts[row] : contexts.ends[row]]

    @property
    def room(self) -> int:
        """The most tokens that a text and the answers to its turns can have together."""
        return self.max_new_tokens + self._max_reply_tokens

    def prompt_ids(self, row: int) -> NDArray[np.int64]:
        """The tokens of a row's prompt as the agent sees them, int64 (p,); a view."""
        return dynamics.prompt_ids(self._contexts, row)

    def text(self, row: int) -> str:
        """The text written in a row.

        While the row goes on, bytes of a character that is not whole yet are held back; once it
        has ended, the text is exactly what its token ids decode to behind the prompt.
        """
        turn = self.turn_text(row)
        return self._past[row].text + turn if row in self._past else turn

    def turn_text(self, row: int) -> str:
        """The text of the turn that goes on; of tasks of one turn, all of it."""
        contexts, stream, ended = self._contexts, self._streams[row], self.ended[row]
        if stream is None:
            if ended and self.tokenizer.is_byte_level:  # at once, when nobody read it before
                return self.tokenizer.decode(self.turn_ids(row))
            before = self._before(row)
            stream = self._streams[row] = self.tokenizer.stream(before)
            self._decoded[row] = contexts.starts[row] + len(before)
            self._texts[row] = ""
        decoded, end = self._decoded[row], contexts.ends[row]
        if decoded < end:
            new_ids: list[int] = contexts.input_ids.ravel()[decoded:end].tolist()
            self._decoded[row], self._texts[row] = end, stream.push(new_ids)
        return stream.finish() if ended else self._texts[row]

    def pieces(self, row: int) -> list[str]:
        """The text that each token of a row added, t items; "" for part of a character."""
        pieces = self._turn_pieces(row, ended=bool(self.ended[row]))
        return [*self._past[row].pieces, *pieces] if row in self._past else pieces

    def _turn_pieces(self, row: int, *, ended: bool) -> list[str]:
        token_ids: list[int] = self.turn_ids(row).tolist()
        return self.tokenizer.pieces(self._before(row), token_ids, ended=ended)

    def _before(self, row: int) -> NDArray[np.int64]:
        """The tokens before the turn that goes on, int64 (p,)."""
        if row not in self._past:
            return self.prompt_ids(row)
        contexts = self._contexts
        return contexts.input_ids.ravel()[contexts.starts[row] : self._past[row].begins]

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
        turns = list(self._past[row].turns) if row in self._past else ()
        return Sample(
            example.prompt,
            text,
            example.reference,
            token_ids,
            example.columns,
            turns,
            self.continues(row),
        )

    def samples(self, rows: Rows) -> Sequence[Sample]:
        """`sample` of each of `rows`."""
        return [self.sample(row) for row in rows.tolist()]
