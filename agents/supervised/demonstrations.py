"""Texts to imitate: the references of a task, or the documents of a corpus, as tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch

from agents.examples import first_examples
from agents.pretraining.corpus import read_corpus
from agents.scoring import SequenceBatch
from agents.sequences import TokenSequence, sequence_batches
from agents.supervised.encoding import Demonstration, Encoder, Variants, fingerprint, pieces
from textgym.prompt_format import PromptFormat
from textgym.prompts import PromptTruncation
from textgym.tasks.base import Example, Stream, Task
from textgym.tasks.lazy import LazyExamples
from textgym.templates import Template
from textgym.tokenizer import Tokenizer

CORPUS_CONTEXT = 256
"""Tokens in which documents are cut, unless told otherwise."""

_PATIENCE = 1_000
"""Examples of a stream that may come without a reference, one after the other."""


class Demonstrations:
    """Texts to imitate, read in an order of chance.

    Made by `of_task`, `of_documents` or `of_corpus`.

    Args:
        texts: The texts, each put by every template; or what begins to read a stream of them,
            which has no end, with a generator that orders it.

    Attributes:
        cut: How many of the texts in memory lost their ends.
        longest: Tokens of the longest of the texts in memory, 0 if there are none there.
    """

    def __init__(
        self, texts: Sequence[Variants] | Callable[[np.random.Generator], Iterator[Variants]]
    ) -> None:
        self._stream = texts if callable(texts) else None
        self._texts: Sequence[Variants] = () if callable(texts) else texts
        self._drawn: Iterator[Demonstration] | None = None  # of a stream, from a seed on
        self._seed = self._count = 0
        self.cut = 0
        self.longest = 0

    def fingerprint(self) -> str | None:
        """What tells the texts from others; None if they are not in memory."""
        in_memory = self._stream is None and not isinstance(self._texts, _LazyTexts)
        return fingerprint(self._texts) if in_memory else None

    @classmethod
    def of_task(
        cls,
        task: Task,
        split: str,
        form: PromptFormat,
        *,
        templates: Sequence[str] | None = None,
        max_new_tokens: int | None = None,
        context_length: int | None = None,
        prompt_truncation: PromptTruncation = "error",
        most: int | None = None,
    ) -> Demonstrations:
        """The references of a task: what a model would have to write for its prompts.

        Examples without a reference are left out. A reference that is longer than
        `max_new_tokens`, or than the context has room for, is cut as an environment cuts what is
        written, and then does not end with the end token.

        Args:
            task: The task.
            split: Whose examples.
            form: Makes tokens of prompts and references, as plain text or as a chat.
            templates: Ways to put a prompt, of which chance takes one each time; None for the
                task's own.
            max_new_tokens: Most tokens of a reference that are learned; None for all. So many are
                kept for it in the context.
            context_length: Most tokens of prompt and reference together; None for what is needed.
            prompt_truncation: What becomes of prompts that do not fit: an error, or their end is
                kept.
            most: Only the first so many examples, or so many of a stream; None for all.

        Raises:
            ValueError: If there is nothing to imitate, or a prompt is empty or does not fit.
        """
        _check_one_turn(task)
        templates = task.templates if templates is None else templates
        encode = Encoder(
            form,
            tuple(map(Template, templates)) or (None,),
            max_new_tokens,
            context_length,
            prompt_truncation,
        )
        if most is not None:
            task = replace(task, splits={split: first_examples(task, split, most, seed=0)})
        examples = task.split(split)
        if isinstance(examples, Stream):
            return cls(partial(_read_stream, examples, encode, task.name))
        known = _with_reference(task, split)
        if not isinstance(examples, tuple):
            return cls(_LazyTexts(examples, known, encode))
        return cls._in_memory([encode(examples[index]) for index in known], encode)

    @classmethod
    def of_documents(
        cls, documents: Sequence[str], tokenizer: Tokenizer, context_length: int | None = None
    ) -> Demonstrations:
        """Whole texts, each as a model writes it from nothing, to its end.

        Args:
            documents: The texts.
            tokenizer: Makes tokens of them.
            context_length: Longer texts are cut into pieces of so many tokens, in each of which
                all tokens but the first are learned; None for 256.

        Raises:
            ValueError: If the context has no room for a token to learn, or there is no text.
        """
        length = CORPUS_CONTEXT if context_length is None else context_length
        if length < 2:
            raise ValueError(f"context_length={length} has no room for two tokens of a text.")
        cut = [(piece,) for document in documents for piece in pieces(document, tokenizer, length)]
        if not cut:
            raise ValueError("there is no text to imitate: all documents are empty.")
        return cls._in_memory(cut)

    @classmethod
    def of_corpus(
        cls, paths: Sequence[str | Path], tokenizer: Tokenizer, context_length: int | None = None
    ) -> Demonstrations:
        """The documents of files and directories; see `agents.pretraining.corpus.read_corpus`.

        Args:
            paths: Files and directories; one that is listed again counts more often.
            tokenizer: As `of_documents`.
            context_length: As `of_documents`.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If a file cannot be read, or none holds a text.
        """
        files = read_corpus([Path(path) for path in paths])
        documents = [text for file in files for text in file.documents * file.repeats]
        return cls.of_documents(documents, tokenizer, context_length)

    @classmethod
    def _in_memory(cls, texts: Sequence[Variants], encode: Encoder | None = None) -> Demonstrations:
        made = cls(texts)
        made.cut = 0 if encode is None else encode.cut
        made.longest = max(len(c) + len(w) for variants in texts for c, w in variants)
        return made

    @property
    def size(self) -> int | None:
        """How many there are; None of a stream, which has no end."""
        return len(self._texts) if self._stream is None else None

    def all(self) -> list[Demonstration]:
        """All, put by the templates in turn.

        Raises:
            ValueError: Of a stream.
        """
        if self._stream is not None:
            raise ValueError("a stream of texts has no end; read some of it with read().")
        texts = (self._texts[index] for index in range(len(self._texts)))
        return [variants[index % len(variants)] for index, variants in enumerate(texts)]

    def read(self, seed: int, start: int = 0) -> Iterator[Demonstration]:
        """Demonstrations without end, each pass over them in another order.

        Args:
            seed: The same seed gives the same ones.
            start: How many of them to leave out at the beginning.
        """
        if self._stream is not None:
            generator = np.random.default_rng(seed)
            texts = self._stream(generator)
            return islice((_one(variants, generator) for variants in texts), start, None)
        return self._passes(seed, start)

    def draw(
        self, num_tokens: int, max_tokens: int, device: torch.device
    ) -> Iterator[SequenceBatch]:
        """Texts drawn by numpy's global generator, which SB3 seeds.

        Args:
            num_tokens: Tokens to learn in all: as many texts are drawn as it takes to reach that.
            max_tokens: Most tokens of a batch, padding among them.
            device: Where the batches are wanted.

        Returns:
            The texts as batches of sequences; the `places` of their tokens count them through.
        """
        drawn: list[Demonstration] = []
        total = 0
        while total < num_tokens or not drawn:
            drawn.append(self._draw())
            total += len(drawn[-1].written)
        return batches(drawn, max_tokens, device)

    def state(self) -> dict[str, int]:
        """How far a stream has been drawn from; texts in memory are drawn by chance alone."""
        return {} if self._drawn is None else {"seed": self._seed, "count": self._count}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on drawing where another was."""
        if state:
            self._seed, self._count = state["seed"], state["count"]
            self._drawn = self.read(self._seed, self._count)

    def _draw(self) -> Demonstration:
        if self._stream is not None:
            if self._drawn is None:  # goes on where it was, as a stream cannot be read at random
                self._seed = int(np.random.randint(2**31))
                self._drawn = self.read(self._seed)
            self._count += 1
            return next(self._drawn)
        variants = self._texts[int(np.random.randint(len(self._texts)))]
        return variants[0 if len(variants) == 1 else int(np.random.randint(len(variants)))]

    def _passes(self, seed: int, start: int) -> Iterator[Demonstration]:
        for number in count(start // len(self._texts)):
            # A function of seed and pass, so that who goes on needs no saved generator.
            generator = np.random.default_rng([seed, number])
            order = generator.permutation(len(self._texts))
            ways = generator.random(len(self._texts))
            for place in range(max(start - number * len(order), 0), len(order)):
                variants = self._texts[int(order[place])]
                yield variants[int(ways[place] * len(variants))]


def check_imitable(task: Task, split: str) -> None:
    """Raise if there is nothing to imitate in a task; of a stream that shows when it is read.

    Raises:
        ValueError: If no example of the split has a reference, or there are several turns.
    """
    _check_one_turn(task)
    if not isinstance(task.split(split), Stream):
        _with_reference(task, split)


def _check_one_turn(task: Task) -> None:
    if task.interaction is not None:
        raise ValueError(
            f"task {task.name!r} has several turns, and its references say nothing of the "
            "turns between. Give a task of one turn, or a corpus of whole dialogues."
        )


def _with_reference(task: Task, split: str) -> list[int]:
    """Indices of the examples of a split, which is no stream, that have a reference."""
    examples = task.split(split)
    assert not isinstance(examples, Stream)
    bare = examples.bare() if isinstance(examples, LazyExamples) else examples
    known = [index for index, example in enumerate(bare) if example.reference is not None]
    if not known:
        raise ValueError(_nothing_to_imitate(f"no {split} example of task {task.name!r}"))
    return known


def batches(
    demonstrations: Sequence[Demonstration], max_tokens: int, device: torch.device
) -> Iterator[SequenceBatch]:
    """Demonstrations, at least one, as batches of sequences of about the same length.

    Args:
        demonstrations: The texts.
        max_tokens: Most tokens of a batch, padding among them.
        device: Where the batches are wanted.
    """
    ends = np.cumsum([len(written) for _, written in demonstrations])
    sequences = (
        TokenSequence(context, written, np.arange(end - len(written), end))
        for (context, written), end in zip(demonstrations, ends.tolist(), strict=True)
    )
    return sequence_batches(sequences, max_tokens, device)


class _LazyTexts(Sequence[Variants]):
    """Examples that are read and put into tokens when they are asked for."""

    def __init__(
        self, examples: Sequence[Example], indices: Sequence[int], encode: Encoder
    ) -> None:
        self._examples = examples
        self._indices = np.array(indices, np.int64)
        self._encode = encode

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Variants:  # type: ignore[override]  # no slices here
        return self._encode(self._examples[int(self._indices[index])])


def _read_stream(
    stream: Stream, encode: Encoder, name: str, generator: np.random.Generator
) -> Iterator[Variants]:
    """The references of a stream, in a copy of it that begins anew."""
    stream = copy.deepcopy(stream)
    without = 0
    while without < _PATIENCE:
        example = stream.draw(generator)
        if example.reference is None:
            without += 1
            continue
        without = 0
        yield encode(example)
    raise ValueError(_nothing_to_imitate(f"none of {_PATIENCE:,} examples of task {name!r}"))


def _one(variants: Variants, generator: np.random.Generator) -> Demonstration:
    return variants[int(generator.random() * len(variants))]


def _nothing_to_imitate(what: str) -> str:
    return (
        f"{what} has a reference, and there is nothing to imitate. Give a task with references, "
        'such as {"name": "file", "path": ...} of a file with a column "reference", or a corpus '
        "of texts."
    )
