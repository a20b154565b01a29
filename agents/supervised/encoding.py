"""Examples and documents as tokens: what stands before a text, and what is to be learned of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.prompt_format import PlainFormat, PromptFormat
from textgym.prompts import PromptTruncation
from textgym.tasks.base import Example
from textgym.templates import Template
from textgym.tokenizer import Tokenizer


class Demonstration(NamedTuple):
    """A text to imitate.

    Attributes:
        context: What stands before it, which is not learned, at least one token id, int32 (c,).
        written: What is learned, at least one token id, int32 (w,).
    """

    context: NDArray[np.int32]
    written: NDArray[np.int32]


Variants: TypeAlias = Sequence[Demonstration]
"""A text to imitate, put by each of the templates."""


def fingerprint(texts: Iterable[Variants]) -> str:
    """SHA-256 of the tokens of texts, in their order."""
    digest = hashlib.sha256()
    for variants in texts:
        for context, written in variants:
            # The lengths first, so that no token can pass from one text to the next.
            digest.update(np.array([len(context), len(written)], np.int32).tobytes())
            digest.update(context.tobytes())
            digest.update(written.tobytes())
    return digest.hexdigest()


class Encoder:
    """Makes demonstrations of examples; counts references that lost their ends."""

    def __init__(
        self,
        form: PromptFormat,
        ways: Sequence[Template | None],
        max_new_tokens: int | None,
        context_length: int | None,
        truncation: PromptTruncation,
    ) -> None:
        if truncation not in ("error", "left"):
            raise ValueError(f"prompt_truncation is 'error' or 'left', got {truncation!r}.")
        room = 1 if max_new_tokens is None else max_new_tokens
        if context_length is not None and context_length <= room:
            raise ValueError(
                f"context_length={context_length} leaves no room for a prompt beside the {room} "
                "tokens that are learned. Give a larger one, or a smaller max_new_tokens."
            )
        self._form = form
        self._ways = ways
        self._max_new_tokens = max_new_tokens
        self._context_length = context_length
        self._room = room
        self._truncation = truncation
        self.cut = 0

    def __call__(self, example: Example) -> Variants:
        """An example that has a reference, put by each template."""
        made = [self._put(example, way) for way in self._ways]
        self.cut += any(cut for _, cut in made)
        return [demonstration for demonstration, _ in made]

    def _put(self, example: Example, way: Template | None) -> tuple[Demonstration, bool]:
        assert example.reference is not None
        put = example if way is None else way.apply(example)
        context = self._fit(self._form.encode(put))
        written = _written(self._form, put, example.reference)
        if not written:
            raise ValueError(
                f"the reference of {example.prompt[:60]!r} is empty, and the tokenizer has no end "
                "token to learn in its place. Take the example out, or give it a reference."
            )
        most = [len(written)]
        if self._max_new_tokens is not None:
            most.append(self._max_new_tokens)
        if self._context_length is not None:
            most.append(self._context_length - len(context))
        learned = written[: min(most)]
        made = Demonstration(np.array(context, np.int32), np.array(learned, np.int32))
        return made, len(learned) < len(written)

    def _fit(self, context: list[int]) -> list[int]:
        """The tokens of a prompt, as many as there is room for."""
        if not context:
            raise ValueError(
                "a prompt has no tokens, and a model needs at least one to go on from. Give a "
                "prompt that is not empty."
            )
        if self._context_length is None or len(context) <= self._context_length - self._room:
            return context
        if self._truncation == "left":
            return context[self._room - self._context_length :]
        raise ValueError(
            f"a prompt has {len(context)} tokens, and there is room for "
            f"{self._context_length - self._room} beside {self._room} to learn in "
            f"context_length={self._context_length}. Give a larger one, or "
            "prompt_truncation='left' to keep only the end of long prompts."
        )


def _written(form: PromptFormat, example: Example, text: str) -> list[int]:
    """The tokens of a text and its end, which stands nowhere else."""
    written = form.encode_completion(example, text)
    if not form.end_ids.isdisjoint(written[:-1]):
        raise ValueError(
            f"the tokenizer {form.original.name!r} makes an end token of what stands in the text "
            f"{text[:60]!r}, which would end there. Take it out of the text, or the text out of "
            "the data."
        )
    return written


def pieces(document: str, tokenizer: Tokenizer, context_length: int) -> Iterator[Demonstration]:
    """A document and its end, in pieces that fit; each begins with the last token of the other."""
    form = PlainFormat(tokenizer)
    nothing = Example("")
    written = _written(form, nothing, document)
    start = form.encode(nothing)
    if not start:
        starts = (i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None)
        first = next(starts, None)
        start, written = ([first], written) if first is not None else (written[:1], written[1:])
    begin, end = 0, max(context_length - len(start), 1)
    while begin < len(written):
        yield Demonstration(np.array(start, np.int32), np.array(written[begin:end], np.int32))
        begin, start = end, written[end - 1 : end]
        end = begin + context_length - 1
