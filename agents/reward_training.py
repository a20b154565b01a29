r"""Training a reward model: a language model that learns which of two answers people preferred.

`textgym train-reward DATA --output DIR` reads prompts, each with a chosen and a rejected answer,
and leaves a directory in Hugging Face layout whose model gives every text a number r. It makes
what people chose likely by the model of Bradley and Terry (1952), under which one answer is
preferred to another with probability $\sigma(r_c - r_r)$:

$$ L = -\log \sigma(r_c - r_r). $$
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional
from tyro.conf import Positional

from agents.backbone import DType
from agents.config_checks import check
from agents.devices import known_device
from agents.models import model_source, no_progress_bars
from agents.preferences import Preference, read_preferences
from agents.pretraining.trainer import learning_rate_at
from agents.rewards.reward_model import RECORD
from agents.rewards.sequence_scorer import (
    MAX_TOKENS,
    encode,
    load_classifier,
    padded,
    set_pad_token,
    window,
)
from textgym.files import atomic_directory

STALE = ("model*.safetensors*", "pytorch_model*", "adapter_*")
"""Weights that would contradict new ones."""


@dataclass(frozen=True)
class RewardTrainingConfig:
    """Train a reward model from preferences: prompts with a chosen and a rejected answer each."""

    data: Positional[Path]
    """File of preferences, .jsonl or .csv, with the fields prompt, chosen and rejected."""
    output: Path
    """Directory for the model, which must not hold one yet."""
    model: str = "builtin"
    """Model to begin with: "builtin", a local directory in Hugging Face layout, or a hub id."""
    validation_fraction: float = 0.1
    """Share of the different prompts to hold out; what is reported was measured on them."""
    epochs: int = 1
    """Passes over the training pairs."""
    batch_size: int = 32
    """Pairs in an optimiser step."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW, after a warm-up over a tenth of the run; then a cosine. The
    default suits the built-in model; larger ones want less, about 1e-5."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of the new head, of what is held out and of the order of pairs."""
    dtype: DType = "float32"
    """Number type of the matrix products; weights and loss stay in float32."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "gradient_clip"):
            check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "seed"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "0 or above")
        fraction = self.validation_fraction
        check("validation_fraction", fraction, 0 < fraction < 1, "above 0 and below 1")


class Judgement(NamedTuple):
    """What a model says of held-out pairs.

    Attributes:
        accuracy: The share of them of which it holds the chosen answer to be the better one.
        mean: The mean of what it gives all their texts.
        std: The standard deviation of that.
    """

    accuracy: float
    mean: float
    std: float


def train_reward(config: RewardTrainingConfig, console: Console | None = None) -> dict[str, Any]:
    """Train a reward model and write it to `config.output`.

    Args:
        config: What to train on, and how.
        console: Where progress goes; the terminal by default.

    Returns:
        What `reward_training.json` in the output holds: arguments, accuracy on held-out pairs,
        mean and standard deviation of their rewards, versions.

    Raises:
        FileNotFoundError: If there is no such file or model.
        FileExistsError: If the output holds a model already, or is a file.
        ValueError: If the file cannot be used; the message names the line.
        FloatingPointError: If the loss or a held-out reward became infinite or not a number.
    """
    console = console or Console()
    if (config.output / "config.json").exists():
        raise FileExistsError(
            f"--output {config.output} already holds a model. Choose another directory."
        )
    training, held_out = read_preferences(config.data, config.validation_fraction, config.seed)
    config.output.mkdir(parents=True, exist_ok=True)  # now, and not after the work, if it cannot
    torch.manual_seed(config.seed)
    trainer = _Trainer(config)
    pairs, held_out_pairs = trainer.encode(training), trainer.encode(held_out)
    before = trainer.judge(held_out_pairs)
    console.print(
        f"{trainer.model.num_parameters():,} parameters, {len(pairs):,} training and "
        f"{len(held_out_pairs):,} held-out pairs; {trainer.steps(len(pairs)):,} steps on "
        f"{trainer.device.type}, {config.dtype}. Held-out accuracy before: {before.accuracy:.3f}"
    )
    after = trainer.train(pairs, held_out_pairs, console)
    record = {
        "arguments": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "training_pairs": len(pairs),
        "held_out_pairs": len(held_out_pairs),
        "accuracy_before": before.accuracy,
        **after._asdict(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    with atomic_directory(config.output, STALE) as directory:
        with no_progress_bars():
            trainer.model.save_pretrained(directory)
        trainer.tokenizer.save_pretrained(directory)
        (directory / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    console.print(f"The reward model is in {config.output}.", markup=False, soft_wrap=True)
    return record


Pair = tuple[list[int], list[int]]
"""Token ids of the prompt with the chosen and with the rejected answer."""


class _Trainer:
    """The model, its tokenizer and its optimiser."""

    def __init__(self, config: RewardTrainingConfig) -> None:
        self.config = config
        self.device = known_device(config.device)
        location = str(model_source(config.model))
        model, self.tokenizer, missing = load_classifier(location, torch.float32, num_labels=1)
        trunk = [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]
        if trunk:
            raise ValueError(
                f"{config.model!r} lacks weights of the model itself, not of its head alone: "
                f"{', '.join(sorted(trunk)[:3])}, ... Give a whole model."
            )
        self.model: Any = model.to(self.device)
        self.pad = set_pad_token(self.model, self.tokenizer)
        self.window = window(self.model, self.tokenizer)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    def encode(self, preferences: Sequence[Preference]) -> list[Pair]:
        """Token ids; of a text that is too long its end is kept."""
        texts = [p.prompt + answer for p in preferences for answer in (p.chosen, p.rejected)]
        encoded = encode(self.tokenizer, texts, self.window)
        return list(zip(encoded[::2], encoded[1::2], strict=True))

    def steps(self, num_pairs: int) -> int:
        """Optimiser steps of the whole run."""
        return self.config.epochs * -(-num_pairs // self.config.batch_size)

    def train(self, pairs: Sequence[Pair], held_out: Sequence[Pair], console: Console) -> Judgement:
        """Take all steps; what the model says of the held-out pairs in the end."""
        config, steps = self.config, self.steps(len(pairs))
        generator = np.random.default_rng(config.seed)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        step, mean_loss, judgement = 0, math.nan, Judgement(math.nan, math.nan, math.nan)
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("", total=steps)
            for epoch in range(config.epochs):
                order = generator.permutation(len(pairs))
                for start in range(0, len(order), config.batch_size):
                    batch = [pairs[i] for i in order[start : start + config.batch_size]]
                    rate = learning_rate_at(step, steps, steps, config.learning_rate)
                    loss = self._advance(batch, rate, step)
                    mean_loss = loss if step == 0 else 0.95 * mean_loss + 0.05 * loss
                    step += 1
                    progress.update(task, completed=step, description=f"loss {mean_loss:.3f}")
                judgement = self.judge(held_out)
                console.print(
                    f"epoch {epoch + 1}/{config.epochs}  training loss {mean_loss:.4f}  held-out "
                    f"accuracy {judgement.accuracy:.3f}"
                )
        return judgement

    @torch.no_grad()
    def judge(self, pairs: Sequence[Pair]) -> Judgement:
        """What the model says of some pairs, its dropout off."""
        self.model.eval()
        size = self.config.batch_size
        batches = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        parts = [self._rewards(part).cpu() for b in batches for part in self._portions(b)]
        rewards: NDArray[np.float64] = torch.cat(parts).double().numpy()
        if not np.isfinite(rewards).all():
            raise FloatingPointError(
                "The model gives held-out texts rewards that are no numbers. Lower "
                f"--learning-rate ({self.config.learning_rate}) or use --dtype float32."
            )
        right = rewards[:, 0] > rewards[:, 1]
        return Judgement(float(right.mean()), float(rewards.mean()), float(rewards.std()))

    def _advance(self, batch: Sequence[Pair], rate: float, step: int) -> float:
        """One optimiser step, of as many passes as the memory wants; its loss."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self._portions(batch):
            loss = preference_loss(self._rewards(part)).sum() / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if not math.isfinite(total):
            raise FloatingPointError(
                f"The loss became {total} at step {step}. Lower --learning-rate "
                f"({config.learning_rate}) or use --dtype float32."
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.optimizer.step()
        return total

    def _portions(self, batch: Sequence[Pair]) -> list[Sequence[Pair]]:
        """A batch in parts, each of which may be read at a time."""
        longest = max(len(ids) for pair in batch for ids in pair)
        size = max(1, MAX_TOKENS // (2 * longest))
        return [batch[i : i + size] for i in range(0, len(batch), size)]

    def _rewards(self, pairs: Sequence[Pair]) -> Tensor:
        """What the model gives the chosen and the rejected texts, float32 (b, 2)."""
        inputs = padded([ids for pair in pairs for ids in pair], self.pad, self.device)
        bfloat16 = self.config.dtype == "bfloat16"
        autocast = torch.autocast(self.device.type, torch.bfloat16) if bfloat16 else nullcontext()
        with autocast:
            logits: Tensor = self.model(**inputs).logits
        return logits.float().view(-1, 2)


def preference_loss(rewards: Tensor) -> Tensor:
    r"""$-\log \sigma(r_c - r_r)$ of each pair, in nats: (b, 2), the chosen first, to (b,)."""
    return -functional.logsigmoid(rewards[:, 0] - rewards[:, 1])
