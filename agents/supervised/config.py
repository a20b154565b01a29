"""The settings of supervised learning: command line, run file and documentation in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agents.config import RunConfig
from agents.config_checks import check
from agents.specs import Spec, as_templates

_OF_A_RUN = (
    "output",
    "seed",
    "model",
    "backbone",
    "tokenizer",
    "chat",
    "templates",
    "context_length",
    "prompt_truncation",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "dtype",
    "gradient_checkpointing",
    "micro_batch_tokens",
    "device",
)
"""Settings that mean the same in `RunConfig`."""


@dataclass(frozen=True)
class SFTConfig:
    """Train a language model to write what it is shown: references of a task, or a corpus."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the run, which must not hold one yet. None makes a new one under runs/."""
    seed: int = 0
    """Seed of the order of texts; the same command with the same seed repeats the run."""

    model: str = "builtin"
    """Language model to train: a name (see `textgym list models`), a local directory in Hugging
    Face layout, a run, which stands for its model/, a GGUF file, or a hub id."""
    backbone: Spec | None = None
    """A recurrent network from scratch instead, of which the model is only the tokenizer: "rnn",
    "lstm", "gru", or JSON such as {"name": "lstm", "width": 256, "layers": 2}."""
    tokenizer: str | None = None
    """Tokenizer: as for the model; None takes the model's own."""
    task: Spec | None = None
    """Whose references are to be written, each for its prompt: a name (see `textgym list`),
    my_module:MyTask, or JSON such as {"name": "file", "path": "pairs.jsonl"}. Its validation
    split is held out."""
    corpus: tuple[Path, ...] = ()
    """Instead of a task: files (.txt, .md, .jsonl, .json, ChatterBot .yml) and directories, whose
    documents are to be written from nothing."""
    validation_fraction: float = 0.05
    """Share of a corpus's documents that is held out."""
    chat: bool | None = None
    """Prompts as chat messages, or as plain text; None asks whether the tokenizer has a chat
    template."""
    templates: tuple[str, ...] | None = None
    """Ways to put a prompt, such as "Question: {prompt}", or a file of them (.txt, .jsonl), of
    which chance takes one each time; None for the task's own."""
    max_new_tokens: int | None = None
    """Most tokens of a reference that are learned. Longer ones are cut, and then do not end with
    the end token; None for all."""
    context_length: int | None = None
    """Most tokens of prompt and reference together, for which references are cut, too; None for
    what the longest needs. Documents of a corpus are cut into pieces of so many, 256 if None."""
    prompt_truncation: Literal["error", "left"] = "error"
    """What becomes of prompts that do not fit: refused, or only their end is kept."""

    epochs: float = 3.0
    """Passes over the texts; may be a fraction."""
    total_texts: int | None = None
    """Texts to read in all, instead of epochs. A stream, which has no end, needs it."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW, after a warm-up over a twentieth of the run; then a cosine. None
    is 3e-4, which suits the built-in model, and 3e-3 for a network from scratch; larger models
    want less, about 2e-5; adapters want more, about 1e-3."""
    batch_size: int = 512
    """Tokens to learn in an optimiser step: as many texts as it takes to reach that."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Largest norm of a gradient."""
    lora_rank: int | None = None
    """Train low-rank adapters of this rank; None trains the whole model."""
    lora_alpha: float | None = None
    """Adapters are scaled by this over their rank; None is twice the rank."""
    lora_targets: tuple[str, ...] | None = None
    """Names of the layers that get adapters, or "all-linear"; None for what PEFT takes for the
    family."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the transformer; weights, head and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Less memory in an update, for about a third more work."""
    micro_batch_tokens: int = 8_192
    """Most tokens read at a time: memory and speed, never the result."""

    eval_every: int | None = None
    """Texts between two looks at the held-out loss, by which the best model is kept; None for a
    tenth of all, 0 for none: then the last model is kept."""
    eval_texts: int = 256
    """Held-out texts, at most."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "templates", as_templates(self.templates))
        for name in ("epochs", "batch_size", "max_grad_norm", "eval_texts"):
            check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("learning_rate", "max_new_tokens", "context_length", "total_texts"):
            value = getattr(self, name)
            check(name, value, value is None or value > 0, "above 0")
        check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or above")
        every = self.eval_every
        check("eval_every", every, every is None or every >= 0, "0 or above")
        share = self.validation_fraction
        check("validation_fraction", share, 0 < share < 1, "above 0 and below 1")
        if (self.task is None) == (not self.corpus):
            raise ValueError(
                f"give a task with references or a corpus, and not both; got task={self.task!r} "
                f"and corpus={[str(path) for path in self.corpus]}. For instance --task dialogue, "
                "or --corpus texts/."
            )
        for name in ("chat", "templates", "max_new_tokens") if self.corpus else ():
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is for prompts, and a corpus has none. Leave "
                    "it out, or give a task."
                )
        self.as_run()  # checks what both have

    @property
    def peak(self) -> float:
        """The peak learning rate: as given, or what suits the model."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 3e-4 if self.backbone is None else 3e-3

    def as_run(self) -> RunConfig:
        """What a training run with rewards, or a look at the model, takes from these settings.

        Of a corpus it is the default task; the reward is the task's own.
        """
        shared = {name: getattr(self, name) for name in _OF_A_RUN}
        if self.task is not None:
            shared["task"] = self.task
        if self.max_new_tokens is not None:
            shared["max_new_tokens"] = self.max_new_tokens
        if self.corpus:
            shared["context_length"] = None  # that of its pieces
        return RunConfig(**shared)
