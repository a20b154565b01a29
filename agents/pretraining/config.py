"""The settings of a pretraining run: command line, record and documentation in one dataclass."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from agents.pretraining.files import SMALLEST_VOCABULARY

POSITIVE = (
    "context",
    "batch_size",
    "epochs",
    "learning_rate",
    "gradient_clip",
    "eval_every",
    "checkpoint_every",
)
FREE_TO_CHANGE = ("corpus", "output", "checkpoint_every", "sample_prompts", "device", "resume")
"""Fields that may differ when a run goes on: they do not change what it computes."""
ADDED = ("backbone",)
"""Fields that checkpoints of before do not have; they were made with today's defaults."""

TRANSFORMER = {"width": 192, "layers": 4, "heads": 6, "feed_forward": 512}
RECURRENT = {"width": 256, "layers": 1}


@dataclass(frozen=True)
class PretrainConfig:
    """Train a byte-level BPE tokenizer and a small causal language model from scratch."""

    corpus: Positional[tuple[Path, ...]]
    """Files (.txt, .md, .jsonl, .json, ChatterBot .yml) and directories, searched recursively.
    List one again to train on it twice as often."""
    output: Path
    """Directory for the model and its checkpoint. Run the same command again to go on."""
    vocab_size: int = 2048
    """Most tokens that the tokenizer may have: 256 bytes, 2 special tokens, merges."""
    context: int = 256
    """Tokens that the model sees at once."""
    backbone: Literal["transformer", "rnn", "lstm", "gru"] = "transformer"
    """The network: a transformer of Llama's shape, or a recurrent one (one or two layers do)."""
    width: int | None = None
    """Size of the hidden states. None is 192, and 256 for a recurrent network."""
    layers: int | None = None
    """Number of layers. None is 4, and 1 for a recurrent network."""
    heads: int | None = None
    """Attention heads of a transformer's layer; must divide the width into even parts. None is
    6."""
    feed_forward: int | None = None
    """Inner size of a transformer's gated feed-forward blocks. None is 512."""
    batch_size: int = 8
    """Windows of `context` tokens in an optimiser step."""
    epochs: float = 9.0
    """Passes over the training tokens; may be a fraction."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW, reached after the warm-up; then a cosine down to 2% of it."""
    weight_decay: float = 0.3
    """Decoupled weight decay of the matrices (not of norms and biases)."""
    warmup: int = 200
    """Steps of linear warm-up, a tenth of the run at most."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    validation_fraction: float = 0.03
    """Share of the documents to hold out, in contiguous chunks."""
    eval_every: int = 500
    """Steps between held-out evaluations; the best model so far is kept in the output."""
    checkpoint_every: int = 500
    """Steps between checkpoints. Ctrl-C also writes one."""
    sample_prompts: tuple[str, ...] = ("",)
    """Prompts to continue at every evaluation; an empty one starts a new document."""
    license: str = "unknown"
    """Licence of the trained model, for its card: an identifier such as apache-2.0."""
    seed: int = 0
    """Seed of the held-out split, the initial weights and the order of the windows."""
    device: str = "auto"
    """`auto` (an accelerator where there is one), `cpu`, `cuda`, `mps`, ..."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 or not; `auto`: where the hardware has bfloat16 units."""
    resume: bool = True
    """Go on from the checkpoint in the output; `--no-resume` starts anew and overwrites."""

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ValueError: A field is out of range; the message names it.
        """
        if not self.corpus:
            raise ValueError("no corpus: give at least one file or directory of texts.")
        self._check_shape()
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("weight_decay", "warmup", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1, "
                f"e.g. 0.03."
            )
        if self.vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {self.vocab_size}; it must be at least {SMALLEST_VOCABULARY} "
                f"(256 bytes and 2 special tokens)."
            )

    def _check_shape(self) -> None:
        shape = self.shape
        for name in TRANSFORMER:
            if name not in shape and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, which is for transformers, and backbone is "
                    f"{self.backbone!r}; leave it out."
                )
        for name, size in shape.items():
            if not size > 0:
                raise ValueError(f"{name} is {size}; it must be greater than 0.")
        if "heads" in shape and shape["width"] % (2 * shape["heads"]):
            raise ValueError(
                f"width is {shape['width']} and heads is {shape['heads']}; rotary positions need "
                f"a width that is a multiple of 2 * heads = {2 * shape['heads']}."
            )

    @property
    def shape(self) -> dict[str, int]:
        """The sizes of the network: as given, or what suits its kind."""
        sizes = TRANSFORMER if self.backbone == "transformer" else RECURRENT
        given = {name: getattr(self, name) for name in sizes}
        return {name: sizes[name] if size is None else size for name, size in given.items()}

    def as_data(self) -> dict[str, Any]:
        """The fields as JSON-able data: paths as strings, and sizes as the network has them."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return {**data, **self.shape}

    def identity(self, corpus_sha256: str) -> dict[str, Any]:
        """Everything that the result depends on: two runs may share a checkpoint if it is equal."""
        fixed = {name: v for name, v in self.as_data().items() if name not in FREE_TO_CHANGE}
        for field in dataclasses.fields(self):
            if field.name in ADDED and fixed[field.name] == field.default:
                del fixed[field.name]
        for name, size in TRANSFORMER.items():
            if fixed[name] is None:  # checkpoints of recurrent networks have had it, too
                fixed[name] = size
        return {**fixed, "corpus": corpus_sha256}

    def command_line(self) -> str:
        """The command that makes this config; fields at their defaults are left out."""
        words = ["textgym", "pretrain", *(str(path) for path in self.corpus)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "corpus" or value == field.default:
                continue
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{flag}", *(str(item) for item in values)]
        return shlex.join(words)
