"""Training a small causal language model from scratch, tokenizer included.

`textgym pretrain CORPUS... --output DIR` leaves a directory in Hugging Face layout: a byte-level
BPE tokenizer and a Llama-shaped or a recurrent model. A run can be stopped at any time, and goes
on where it stopped when it is started again in the same way.
"""

from __future__ import annotations

import math
import platform
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from agents.checkpointing import Checkpoints, load_tree, save_tree
from agents.devices import known_device
from agents.health.causes import in_supervised_update
from agents.health.diverged import Diverged, batch_of_texts
from agents.interrupts import Stopped, interrupts
from agents.pretraining.config import PretrainConfig
from agents.pretraining.corpus import fingerprint, read_corpus, split_documents
from agents.pretraining.files import train_tokenizer, write_model_directory
from agents.pretraining.model import (
    build_model,
    build_optimizer,
    held_out_loss,
    negative_log_likelihood,
    resolve_precision,
    sample,
)
from agents.pretraining.windows import cut, epoch_windows, token_stream, windows_per_epoch
from agents.run_lock import run_lock
from agents.wording import say
from textgym.rendering.transcript import count
from textgym.shell import program

PROGRESS = ("step", "seconds", "training_loss", "history")


def checkpoints_of(output: Path) -> Checkpoints:
    """Where a pre-training that goes on has its checkpoint; there is none of one that is done."""
    return Checkpoints(output / "checkpoints", keep=1)


def pretrain(config: PretrainConfig, console: Console | None = None) -> dict[str, Any]:
    """Trains (or goes on training) a tokenizer and a model, and writes them to `config.output`.

    Args:
        config: What to train on, and how.
        console: Where progress goes; the terminal by default.

    Returns:
        What `training.json` in the output holds: arguments, tokens seen, losses, versions.

    Raises:
        FileNotFoundError: A path of the corpus does not exist.
        ValueError: The corpus cannot be used, or the output holds another run.
        Diverged: The loss or its gradient became infinite or not a number; the weights are good.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
    """
    trainer = Trainer(config, console or Console())
    with run_lock(config.output):
        return trainer.run()


def learning_rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then a cosine from `peak` to 2% of it at the last of `steps` steps.

    Args:
        step: Index of the step, from 0.
        steps: Steps of the whole run.
        warmup: Steps of warm-up; at most a tenth of the run is used.
        peak: Highest learning rate.
    """
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


class Trainer:
    """One run: its data, model and optimiser, and the step that it has reached."""

    def __init__(self, config: PretrainConfig, console: Console) -> None:
        """Reads the corpus, and the checkpoint if there is one.

        Raises:
            FileNotFoundError: A path of the corpus does not exist.
            ValueError: The corpus cannot be used, or the output holds another run.
        """
        self.config = config
        self.console = console
        device = known_device(config.device)
        self.dtype = resolve_precision(config.precision, device)
        files = read_corpus(config.corpus)
        training, held_out = split_documents(files, config.validation_fraction, config.seed)
        self.identity = config.identity(fingerprint(files))
        self._checkpoints = checkpoints_of(config.output)
        saved = self._load_checkpoint()
        self.tokenizer: Tokenizer = (
            Tokenizer.from_str(saved["tokenizer"])
            if saved
            else train_tokenizer(training, config.vocab_size)
        )
        (self.eos,) = self.tokenizer.encode("").ids
        self.stream = token_stream(self.tokenizer, training)
        self.held_out = token_stream(self.tokenizer, held_out)
        self.held_out_bytes = sum(len(text.encode()) for text in held_out)
        windows = windows_per_epoch(len(self.stream), config.context)
        self.steps_per_epoch = windows // config.batch_size
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"The corpus has {len(self.stream):,} training tokens, less than one batch of "
                f"{config.batch_size} windows of {config.context} tokens. Give more text, or lower "
                f"--batch-size or --context."
            )
        self.steps = max(1, round(config.epochs * self.steps_per_epoch))

        torch.manual_seed(config.seed)
        vocab_size = self.tokenizer.get_vocab_size()
        self.model = build_model(config, vocab_size, eos=self.eos, pad=self.eos + 1)
        torch.nn.Module.to(self.model, device)
        self.optimizer = build_optimizer(self.model, config.weight_decay)
        self.order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        self.step = 0
        self.seconds = 0.0
        self.training_loss = math.nan
        self.history: list[dict[str, float]] = []
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            for name in PROGRESS:
                setattr(self, name, saved[name])

    def run(self) -> dict[str, Any]:
        """Trains to the last step; returns what `training.json` holds."""
        config = self.config
        self.console.print(
            f"{self.model.num_parameters():,} parameters, vocabulary "
            f"{self.tokenizer.get_vocab_size():,}, {len(self.stream):,} training and "
            f"{len(self.held_out):,} held-out tokens; steps {self.step:,} to {self.steps:,} "
            f"({self.steps_per_epoch:,} an epoch) on {self.model.device.type}, "
            f"{_name(self.dtype)}"
        )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        progress = Progress(*columns, TimeRemainingColumn(), console=self.console)
        if self.step == 0:
            self._save_checkpoint()  # so that an output without one is finished
        with interrupts() as interrupted, progress:
            task = progress.add_task("", total=self.steps, completed=self.step)
            while self.step < self.steps:
                self._advance()
                text = f"loss {self.training_loss:.3f}  {self._tokens_per_second():,.0f} tok/s"
                progress.update(task, completed=self.step, description=text)
                last = self.step == self.steps
                if last or self.step % config.eval_every == 0:
                    self._evaluate()
                if interrupted or last or self.step % config.checkpoint_every == 0:
                    self._save_checkpoint()
                if interrupted and not last:
                    saved = f"Saved after {count(self.step, 'step')}. Go on:"
                    say(self.console, saved, whole=self._command_to_go_on())
                    raise Stopped
        self._checkpoints.remove()
        say(self.console, "model   ", whole=str(config.output))
        where = shlex.quote(str(config.output))
        say(self.console, "Try it:", whole=f"{program()} sample --model {where}")
        say(self.console, "Train it with rewards:", whole=f"{program()} train --model {where}")
        return self.record()

    def record(self) -> dict[str, Any]:
        """What was done, as plain data; the losses are those of the best model of the run."""
        best = min(self.history, key=lambda row: row["held_out_loss"])
        tokens = int(best["step"]) * self.config.batch_size * self.config.context
        return {
            "command": self.config.command_line(),
            "arguments": self.config.as_data(),
            "corpus_sha256": self.identity["corpus"],
            "parameters": self.model.num_parameters(),
            "vocab_size": self.tokenizer.get_vocab_size(),
            "training_tokens": len(self.stream),
            "held_out_tokens": len(self.held_out),
            "held_out_bytes": self.held_out_bytes,
            **best,
            "tokens_seen": tokens,
            "epochs_seen": round(tokens / len(self.stream), 2),
            "device": self.model.device.type,
            "precision": _name(self.dtype),
            "history": self.history,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
            },
        }

    def _command_to_go_on(self) -> str:
        return replace(self.config, resume=True).command_line()

    def _advance(self) -> None:
        """One optimiser step."""
        config = self.config
        started = time.perf_counter()
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        if self.order[0] != epoch:
            # A function of seed and epoch, so a resumed run needs no saved generator.
            rng = np.random.default_rng([config.seed, epoch])
            self.order = epoch, epoch_windows(self.stream, config.context, self.eos, rng)
        starts = self.order[1][batch * config.batch_size : (batch + 1) * config.batch_size]
        windows = cut(self.stream, starts, config.context)
        rate = learning_rate_at(self.step, self.steps, config.warmup, config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        self.model.train()
        total = negative_log_likelihood(self.model, windows, self.dtype)
        mean = total / (config.batch_size * config.context)
        self.optimizer.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        size = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        loss, norm = torch.stack([mean.detach(), size.to(mean)]).tolist()  # one wait for a device
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(windows, loss, norm)
        self.optimizer.step()
        first = math.isnan(self.training_loss)
        self.training_loss = loss if first else 0.98 * self.training_loss + 0.02 * loss
        self.step += 1
        self.seconds += time.perf_counter() - started

    def _diverged(self, windows: NDArray[np.int64], loss: float, norm: float) -> Diverged:
        """What ends a run whose next step would spoil the weights, with its batch saved."""
        config = self.config
        self.optimizer.zero_grad(set_to_none=True)
        cure = f"lower --learning-rate ({config.learning_rate:g}), or use --precision float32."
        batch = batch_of_texts([*windows[:, :1]], [*windows[:, 1:]], {})
        error = in_supervised_update(self.model, loss, norm, cure, batch)
        error.when = f"after {self.step:,} steps"
        error.save(config.output / "diverged", self.tokenizer.decode)
        lower = replace(config, learning_rate=float(f"{config.learning_rate / 10:g}"), resume=False)
        error.way_on = (
            f"the last good checkpoint is {self._checkpoints.latest}; the same command goes on "
            "from it, and takes the same steps again. From the start with another learning rate:"
            f"\n         {lower.command_line()}"
        )
        return error

    def _tokens_per_second(self) -> float:
        return self.step * self.config.batch_size * self.config.context / self.seconds

    def _evaluate(self) -> None:
        config = self.config
        loss = held_out_loss(
            self.model, self.held_out, config.context, config.batch_size, self.dtype
        )
        bits = loss * (len(self.held_out) - 1) / self.held_out_bytes / math.log(2)
        best_before = min((row["held_out_loss"] for row in self.history), default=math.inf)
        self.history.append(
            {
                "step": self.step,
                "training_loss": self.training_loss,
                "held_out_loss": loss,
                "bits_per_byte": bits,
                "seconds": self.seconds,
            }
        )
        self.console.print(
            f"step {self.step:,}/{self.steps:,}  training {self.training_loss:.4f}  held-out "
            f"{loss:.4f} nats/token, {bits:.4f} bits/byte  {self._tokens_per_second():,.0f} tok/s"
        )
        for prompt in config.sample_prompts:
            text = sample(self.model, self.tokenizer, prompt, seed=self.step)
            self.console.print(f"[dim]{escape(text)}[/dim]")
        if loss < best_before:
            write_model_directory(
                config.output, self.model, self.tokenizer, self.record(), config.license
            )

    def _save_checkpoint(self) -> None:
        state = {
            "identity": self.identity,
            "tokenizer": self.tokenizer.to_str(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in PROGRESS},
        }
        self._checkpoints.write(self.step, lambda directory: save_tree(state, directory))

    def _load_checkpoint(self) -> dict[str, Any] | None:
        output = self.config.output
        if output.exists() and not output.is_dir():
            raise ValueError(f"--output {output} is a file; give a directory.")
        if not self.config.resume:
            self._checkpoints.remove()
            return None
        path = self._checkpoints.latest
        if path is None:
            if (output / "config.json").exists():
                raise ValueError(
                    f"--output {output} already holds a model, and no checkpoint to go on from. "
                    f"Choose another directory, or pass --no-resume to replace it."
                )
            return None
        saved = load_tree(path)
        before, now = saved["identity"], self.identity
        changed = [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}. Restore these to go on, "
                f"choose another --output, or pass --no-resume to start anew."
            )
        return saved


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
