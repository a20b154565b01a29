"""`textgym sft`: a model learns to write what it is shown, and is watched on what it is not."""

from __future__ import annotations

import json
import math
import shlex
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from stable_baselines3.common.logger import Logger

from agents.candidates import find
from agents.checkpointing import Checkpoints, load_tree, save_tree
from agents.checkpointing.checkpoints import tokens_of
from agents.devices import known_device
from agents.health import Diverged
from agents.interrupts import Stopped, interrupts
from agents.policy import TransformerPolicy
from agents.recurrent.make import backbone_in_words
from agents.run_directory import RunDirectory
from agents.run_file import save_config
from agents.run_lock import run_lock
from agents.supervised.config import SFTConfig
from agents.supervised.cross_entropy import mean_cross_entropy
from agents.supervised.curve import HELD_OUT, TRAINING, plot_losses
from agents.supervised.encoding import fingerprint
from agents.supervised.texts import Texts, read_texts
from agents.supervised.trainer import SupervisedTrainer
from agents.watching.course import duration
from agents.wording import prompts_in_words, say
from textgym.files import atomic_write
from textgym.rendering.transcript import count
from textgym.shell import program

_ROWS = 200
"""Rows of `progress.csv` of a whole run, those of looks aside."""

_CHECKPOINT_EVERY = 30.0
"""Seconds between two checkpoints, at least."""

_KEEP = 1
"""How many of them are kept."""


@dataclass
class Losses:
    """What is known of the held-out loss, in nats a token.

    Attributes:
        before: Before training; None if nothing is held out.
        best: The lowest since; None before the first look.
        texts: How many texts the model had read then.
    """

    before: float | None = None
    best: float | None = None
    texts: int = 0


def sft(config: SFTConfig, console: Console | None = None, *, resume: bool = False) -> Path:
    """Train a model on texts as the config says, showing progress; returns the run's directory.

    The held-out loss is looked at every so often, and the model with the lowest is kept.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `curves.png`, `model/`
    (with an adapter folded in), `adapter/` if there is one, and `result.json`. Commands that take
    a model take it as one. A run that was stopped also has `checkpoints/`, with which it goes on
    to exactly what it would have been.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the run in `config.output`.

    Raises:
        FileExistsError: If the directory holds a run already, and `resume` is not set.
        FileNotFoundError: If there is no such model, task or text, or nothing to resume.
        ValueError: If the texts cannot be used.
        Diverged: If the loss or its gradient became infinite or not a number; the model is kept
            as it was before.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
    """
    console = console or Console()
    run = RunDirectory(config.output or Path("runs") / f"sft-{datetime.now():%Y%m%d-%H%M%S}")
    if resume:
        check_resumable(run)
    else:
        run.check_new("sft")
    known_device(config.device)
    config = replace(
        config,
        model=find(config.model).source,
        tokenizer=None if config.tokenizer is None else find(config.tokenizer).source,
    )
    supervised = _Run(config, run, console, resume)
    with run_lock(run.path):
        return supervised.train()


def check_resumable(run: RunDirectory) -> None:
    """Raise if there is no supervised run that was stopped.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is over.
    """
    if run.result.is_file():
        raise ValueError(
            f"--resume {run.path}: this run has read all its texts. To go on, start another one "
            f"with --model {run.path}."
        )
    run.check_resumable()


class _Run:
    """A run: what it reads, what it trains, and what it leaves."""

    def __init__(
        self, config: SFTConfig, run: RunDirectory, console: Console, resume: bool
    ) -> None:
        self.config = config
        self.run = run
        self.console = console
        self.texts = read_texts(config)
        torch.manual_seed(config.seed)
        self.policy = _policy(config, self.texts)
        self.trainer = SupervisedTrainer(self.policy.backbone, self.texts.training, config)
        self.losses = Losses()
        self._checkpoints = Checkpoints(run.checkpoints, _KEEP)
        latest = self._checkpoints.latest if resume else None
        if resume:
            run.forget_after(0 if latest is None else tokens_of(latest))
        if latest is not None:
            state = load_tree(latest)
            if state.pop("texts") != self._texts_in_short:
                raise ValueError(
                    f"--resume {run.path}: the texts are not those with which the run began. "
                    "Restore them, or start the run again."
                )
            self.losses = Losses(**state.pop("losses"))
            self.trainer.load_state(state)
        self._saved = time.monotonic()

    def train(self) -> Path:
        """Train to the last text."""
        config, run, progress = self.config, self.run, self.trainer.progress
        self._introduce()
        if progress.texts == 0 and self.texts.held_out:
            self.losses.before = self._held_out_loss()
        if self.losses.before is not None:
            say(self.console, f"held-out loss {self.losses.before:.4f} nats a token at the start")
        run.path.mkdir(parents=True, exist_ok=True)
        save_config(config, run.config, "sft")
        if progress.texts == 0:
            self._checkpoint()
        logger = run.logger(after=progress.tokens)
        try:
            self._loop(logger)
        finally:
            logger.close()
        if not self.texts.held_out or not self._every:
            self._save_model()
        self._report()
        return run.path

    @cached_property
    def _texts_in_short(self) -> list[int | str | None]:
        """What tells texts from others; of training texts that are not in memory their number."""
        training = self.texts.training
        return [training.size, training.fingerprint(), fingerprint([self.texts.held_out])]

    @property
    def _every(self) -> int:
        """Texts between two looks at what is held out; 0 for none."""
        every = self.config.eval_every
        return max(self.trainer.total // 10, 1) if every is None else every

    def _loop(self, logger: Logger) -> None:
        trainer, progress = self.trainer, self.trainer.progress
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        bar = Progress(*columns, TextColumn("texts"), TimeRemainingColumn(), console=self.console)
        with interrupts() as interrupted, bar:
            shown = bar.add_task("", total=trainer.total, completed=progress.texts)
            while not trainer.done:
                before, started = progress.texts, time.perf_counter()
                self._advance()
                progress.seconds += time.perf_counter() - started
                speed = f"{progress.tokens / progress.seconds:,.0f}"
                text = f"loss {progress.loss:.3f}  {speed} learned tok/s"
                bar.update(shown, completed=progress.texts, description=text)
                every = self._every
                look = every > 0 and (trainer.done or _due(before, progress.texts, every))
                if look or _due(before, progress.texts, max(trainer.total // _ROWS, 1)):
                    self._log(logger, look and bool(self.texts.held_out))
                if interrupted and not trainer.done:
                    self._stop()
                if time.monotonic() - self._saved >= _CHECKPOINT_EVERY:
                    self._checkpoint()

    def _advance(self) -> None:
        """Take a step; if that cannot be, keep its texts, and the model as it was before."""
        try:
            self.trainer.advance()
        except Diverged as error:
            run = self.run
            error.save(run.diverged, self.texts.form.tokenizer.decode)
            if self.losses.best is None:
                self._save_model()
            config, model = (shlex.quote(str(path)) for path in (run.config, run.path))
            error.way_on = (
                f"the last good checkpoint is {self._checkpoints.latest}. To resume from it as it "
                f"is would take the same steps again. Train {run.model} on, in a new run:\n"
                f"         {program()} sft --config {config} --model {model} "
                f"--learning-rate {self.config.peak / 10:g}"
            )
            raise

    def _log(self, logger: Logger, look: bool) -> None:
        """Write a row of the log, after a look at what is held out where it is time for one."""
        progress = self.trainer.progress
        logger.record(TRAINING, progress.loss)
        logger.record("train/learning_rate", self.trainer.learning_rate)
        logger.record("train/texts", progress.texts, exclude="tensorboard")
        logger.record("time/total_timesteps", progress.tokens, exclude="tensorboard")
        logger.record("time/tokens_per_second", progress.tokens / progress.seconds)
        if look:
            loss = self._held_out_loss()
            logger.record(HELD_OUT, loss)
            say(
                self.console,
                f"{progress.texts:,}/{self.trainer.total:,} texts  training {progress.loss:.4f}  "
                f"held-out {loss:.4f} nats a token",
            )
            if self.losses.best is None or loss < self.losses.best:
                self.losses.best, self.losses.texts = loss, progress.texts
                self._save_model()
        logger.dump(progress.tokens)

    def _held_out_loss(self) -> float:
        loss = mean_cross_entropy(
            self.policy.backbone, self.texts.held_out, self.config.micro_batch_tokens
        )
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the held-out loss is {loss} after {self.trainer.progress.texts:,} texts. Lower "
                f"--learning-rate ({self.config.peak}) or use --dtype float32."
            )
        return loss

    def _save_model(self) -> None:
        original = self.texts.form.original
        self.policy.save_pretrained(self.run.model, original, merged=True)
        if self.config.lora_rank is not None:
            self.policy.save_pretrained(self.run.adapter, original)

    def _checkpoint(self) -> None:
        state = {
            **self.trainer.state(),
            "losses": asdict(self.losses),
            "texts": self._texts_in_short,
        }
        tokens = self.trainer.progress.tokens
        self._checkpoints.write(tokens, lambda directory: save_tree(state, directory))
        self._saved = time.monotonic()

    def _stop(self) -> None:
        self._checkpoint()
        if self.losses.best is None:
            self._save_model()
        saved = f"Saved after {count(self.trainer.progress.texts, 'text')}. Go on:"
        again = f"{program()} sft --resume {shlex.quote(str(self.run.path))}"
        say(self.console, saved, whole=again)
        raise Stopped

    def _introduce(self) -> None:
        config, weights = self.config, list(self.policy.backbone.parameters())
        model = config.model
        if config.backbone is not None:
            model = backbone_in_words(config.backbone, config.tokenizer or config.model)
        trained = sum(p.numel() for p in weights if p.requires_grad)
        texts = self.texts
        number = texts.training.size
        size = "a stream of texts" if number is None else count(number, "text")
        introduction = Text.assemble(
            "Supervised learning of ",
            (model, "bold"),
            f" ({trained:,} weights trained, on {self.trainer.device}) on {texts.name}: {size}, "
            f"{len(texts.held_out):,} held out; writing to",
        )
        say(self.console, introduction, whole=str(self.run.path))
        if not config.corpus:
            say(self.console, f"Prompts are {prompts_in_words(texts.form.is_chat)}.")
        if texts.training.cut:
            say(
                self.console,
                f"{texts.training.cut:,} of {number:,} references are longer than "
                "max_new_tokens or the context has room for; their ends are not learned.",
            )
        if texts.form.tokenizer.eos_token_id is None:
            say(self.console, "The tokenizer has no end token, so that ends are not learned.")
        if not texts.held_out:
            say(self.console, "Nothing is held out (no validation split): the last model is kept.")

    def _report(self) -> None:
        run, losses, progress = self.run, self.losses, self.trainer.progress
        result: dict[str, Any] = {
            "held_out_texts": len(self.texts.held_out),
            "loss_before": losses.before,
            "loss_after": losses.best,
            "kept_after_texts": losses.texts or progress.texts,
            **{name: getattr(progress, name) for name in ("texts", "tokens", "seconds")},
        }
        plot_losses(run.progress, run.curves, losses.before)
        atomic_write(run.result, json.dumps(result, indent=1) + "\n")
        self._checkpoints.remove()
        say(self.console, f"{progress.tokens:,} tokens learned in {duration(progress.seconds)}")
        if losses.before is not None and losses.best is not None:
            say(
                self.console,
                f"held-out loss {losses.before:.4f} nats a token before, {losses.best:.4f} after "
                f"{count(losses.texts, 'text')}; that model was kept",
                "bold",
            )
            if losses.best >= losses.before:
                say(
                    self.console,
                    "No look found the model better than it was before. Try a lower "
                    f"--learning-rate ({self.config.peak:g}) or more texts.",
                )
        say(self.console, "curve   ", whole=str(run.curves))
        say(self.console, "model   ", whole=str(run.model))
        if self.config.lora_rank is not None:
            say(self.console, "adapter ", whole=str(run.adapter))
        where = shlex.quote(str(run.path))
        say(self.console, "Try it:", whole=f"{program()} sample --model {where}")
        say(self.console, "Train it with rewards:", whole=f"{program()} train --model {where}")


def _policy(config: SFTConfig, texts: Texts) -> TransformerPolicy:
    """The model, as all commands load and save one."""
    size, length = texts.form.tokenizer.vocab_size, texts.context_length
    observations = spaces.Dict(
        input_ids=spaces.Box(0, size - 1, (length,), np.int64),
        attention_mask=spaces.Box(0, 1, (length,), np.int8),
    )
    kwargs = config.as_run().policy_kwargs()
    policy = TransformerPolicy(observations, spaces.Discrete(size), lambda _: 0.0, **kwargs)
    return policy.to(known_device(config.device))


def _due(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` was reached."""
    return now // every > before // every
