"""What a run of supervised learning reads: its training texts, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.pretraining.corpus import read_corpus, split_documents
from agents.supervised.config import SFTConfig
from agents.supervised.demonstrations import CORPUS_CONTEXT, Demonstrations, check_imitable
from agents.supervised.encoding import Demonstration
from agents.supervised.trainer import wants_total_texts
from textgym import tasks
from textgym.prompt_format import PlainFormat, PromptFormat, prompt_format
from textgym.tasks.base import Stream, Task
from textgym.tokenizer import Tokenizer


@dataclass(frozen=True)
class Texts:
    """The texts of a run.

    Attributes:
        name: Where they come from.
        form: How they became tokens.
        training: What is learned.
        held_out: What is not; empty if there is nothing to hold out.
        context_length: Tokens of the longest of all.
    """

    name: str
    form: PromptFormat
    training: Demonstrations
    held_out: Sequence[Demonstration]
    context_length: int


def read_texts(config: SFTConfig) -> Texts:
    """Read and check the texts that a config asks for.

    Raises:
        FileNotFoundError: If there is no such file, or no such tokenizer.
        ValueError: If they cannot be used.
    """
    tokenizer = Tokenizer.from_pretrained(config.tokenizer or config.model)
    return _of_corpus(config, tokenizer) if config.corpus else _of_task(config, tokenizer)


def check_texts(config: SFTConfig) -> None:
    """Raise if the texts of a config cannot be used, as far as that shows without a tokenizer.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If they cannot be used.
    """
    if config.corpus:
        _split_corpus(config)
        return
    task = _task(config)
    check_imitable(task, "train")
    if isinstance(task.split("train"), Stream) and config.total_texts is None:
        raise ValueError(wants_total_texts(config))


def _split_corpus(config: SFTConfig) -> tuple[list[str], list[str]]:
    """The documents to learn, and those that are held out."""
    return split_documents(read_corpus(config.corpus), config.validation_fraction, config.seed)


def _task(config: SFTConfig) -> Task:
    """The task, of which it is known how long its texts may be."""
    assert config.task is not None
    task = tasks.make(config.task)
    if config.context_length is None and not isinstance(task.split("train"), tuple):
        raise ValueError(
            f"the texts of task {task.name!r} are read as they are needed, so that the longest is "
            "not known. Give context_length, in tokens, for prompt and reference together."
        )
    return task


def _of_corpus(config: SFTConfig, tokenizer: Tokenizer) -> Texts:
    context_length = config.context_length or CORPUS_CONTEXT
    training, rest = _split_corpus(config)
    held_out = Demonstrations.of_documents(rest, tokenizer, context_length).all()
    chosen = np.random.default_rng(config.seed).permutation(len(held_out))[: config.eval_texts]
    return Texts(
        ", ".join(str(path) for path in config.corpus),
        PlainFormat(tokenizer),
        Demonstrations.of_documents(training, tokenizer, context_length),
        [held_out[index] for index in sorted(chosen.tolist())],
        context_length,
    )


def _of_task(config: SFTConfig, tokenizer: Tokenizer) -> Texts:
    task = _task(config)
    form = prompt_format(tokenizer, config.chat)

    def of(split: str, most: int | None = None) -> Demonstrations:
        return Demonstrations.of_task(
            task,
            split,
            form,
            templates=config.templates,
            max_new_tokens=config.max_new_tokens,
            context_length=config.context_length,
            prompt_truncation=config.prompt_truncation,
            most=most,
        )

    training = of("train")
    held_out: list[Demonstration] = []
    validation = task.splits.get("validation", ())
    if isinstance(validation, Stream) or any(
        example.reference is not None for example in validation[: config.eval_texts]
    ):
        demonstrations = of("validation", config.eval_texts)
        held_out = demonstrations.all()
    longest = max((len(c) + len(w) for c, w in held_out), default=0)
    context_length = config.context_length or max(training.longest, longest)
    return Texts(task.name, form, training, held_out, context_length)
