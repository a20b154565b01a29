"""`textgym run`: several trainings, one after the other, from one file.

    output: runs/pipeline
    stages:
      - pretrain: {corpus: [texts/], epochs: 3}
      - sft: {task: {name: rewrite, path: pairs.tsv}, epochs: 3}
      - train: {task: {name: rewrite, path: pairs.tsv}, total_timesteps: 40960}

Each stage has the settings of its command. Its model is what the stage before it left, unless it
names another; with `backbone` that is where its tokenizer comes from. Settings are in the units of
their commands: `batch_size` counts windows of `context` tokens (pretrain), or tokens (sft, train),
and `eval_every` optimiser steps (pretrain), texts (sft), or tokens (train).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from agents.candidates import find
from agents.config import RunConfig
from agents.devices import known_device
from agents.pretraining import PretrainConfig, pretrain
from agents.pretraining.config import FREE_TO_CHANGE as FREE_IN_PRETRAINING
from agents.pretraining.corpus import read_corpus, split_documents
from agents.pretraining.trainer import checkpoints_of
from agents.run_directory import RunDirectory
from agents.run_file import FREE_TO_CHANGE, as_config, read_settings
from agents.supervised.config import SFTConfig
from agents.supervised.demonstrations import check_imitable
from agents.supervised.sft import sft
from agents.supervised.texts import check_texts
from agents.train import train
from agents.wording import say
from textgym import RewardError, rewards, tasks
from textgym.files import atomic_write
from textgym.registry import did_you_mean
from textgym.rendering.transcript import rounded
from textgym.shell import program
from textgym.tokenizer import Tokenizer

COPY = "pipeline.yaml"
"""What the file is called in the output."""

_MENDABLE = (ValueError, TypeError, OSError, FloatingPointError, RewardError)
"""What is raised where a person can mend it: the message says how."""


class StageError(ValueError):
    """A stage cannot be run, or has failed; the message says which."""


@dataclass(frozen=True)
class PipelineConfig:
    """Run the trainings that a file lists, one after the other, or go on where they were stopped.

    The file names an output directory and stages, each a command with its settings: pretrain, sft
    or train. All are checked before the first begins. The same command goes on with a pipeline
    that was stopped: stages that are over are left out.
    """

    file: Positional[Path]
    """The file, in YAML."""


class Reached(NamedTuple):
    """What a stage reached.

    Attributes:
        what: What was measured.
        before: That before the stage; None if there was nothing to measure.
        after: That of the model which it left; None if nothing was held out.
        signed: Whether it is on both sides of 0, as scores are.
    """

    what: str
    before: float | None
    after: float | None
    signed: bool = False


@dataclass(frozen=True)
class Stage:
    """One training of a pipeline.

    Attributes:
        command: The command: `pretrain`, `sft` or `train`.
        config: Its settings.
        directory: Where its model and its records go.
        where: The stage in words, for messages.
        given: The settings as the file has them.
    """

    command: str
    config: Any
    directory: Path
    where: str
    given: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it is over."""
        if self.command == "pretrain":  # which leaves a record at every look
            return self._record.is_file() and checkpoints_of(self.directory).latest is None
        return self._record.is_file()

    def reached(self) -> Reached:
        """What it reached, once it is over."""
        return _STAGES[self.command].reached(json.loads(self._record.read_text("utf-8")))

    @property
    def _record(self) -> Path:
        if self.command == "pretrain":
            return self.directory / "training.json"
        return RunDirectory(self.directory).result


def run_pipeline(config: PipelineConfig, console: Console | None = None) -> list[Reached]:
    """Run a pipeline, or what is left of it, and print what each stage reached.

    Args:
        config: Which.
        console: Where to show progress; the terminal if None.

    Returns:
        What each stage reached.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a stage cannot be run as the file says, before any begins; or if a stage
            that has begun had other settings.
        StageError: If a stage fails.
        KeyboardInterrupt: Ctrl-C, after the stage has saved what it has.
    """
    console = console or Console()
    output, stages = read_pipeline(config.file)
    _check_unchanged(output, stages)
    for number, stage in enumerate(stages):
        if not stage.done:
            _check(stage, [earlier.directory for earlier in stages[:number]])
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / COPY, config.file.read_text(encoding="utf-8"))
    for number, stage in enumerate(stages, start=1):
        title = f"Stage {number} of {len(stages)}: {stage.command}, in {stage.directory}"
        if stage.done:
            say(console, f"{title}, is over", "bold")
            continue
        say(console, title, "bold")
        finished = False
        try:
            _STAGES[stage.command].run(stage, console)
            finished = True
        except _MENDABLE as error:
            raise StageError(f"{stage.where}: {error}") from error
        finally:
            if not finished:
                again = f"{program()} run {shlex.quote(str(config.file))}"
                say(console, "Go on with all:", whole=again)
    reached = [stage.reached() for stage in stages]
    console.print(_table(stages, reached))
    last = shlex.quote(str(stages[-1].directory))
    say(console, "The last model:", whole=f"{program()} sample --model {last}")
    return reached


def read_pipeline(file: Path) -> tuple[Path, list[Stage]]:
    """The output directory and the stages that a file names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file; the message says what is wrong with which stage.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; expected a YAML file with output and stages.")
    settings = read_settings(file)
    for key in settings:
        if key not in ("output", "stages"):
            raise ValueError(f"{file}: no setting {key!r}; {did_you_mean(str(key), _KEYS)}.")
    output, given = settings.get("output"), settings.get("stages")
    if not isinstance(output, str) or not output:
        raise ValueError(f"{file}: output is a directory, such as runs/pipeline, got {output!r}.")
    if not isinstance(given, list) or not given:
        raise ValueError(
            f"{file}: stages is a list of commands with their settings, such as "
            f"- sft: {{task: dialogue}}, got {given!r}."
        )
    stages: list[Stage] = []
    for number, item in enumerate(given, start=1):
        before = stages[-1].directory if stages else None
        stages.append(_stage(item, f"{file}, stage {number}", Path(output), number, before))
    return Path(output), stages


_KEYS = ("output", "stages")


def _stage(item: Any, where: str, output: Path, number: int, before: Path | None) -> Stage:
    commands = [name for name in item if name in _STAGES] if isinstance(item, dict) else []
    if len(commands) == 1 and len(item) > 1 and item[commands[0]] is None:
        raise ValueError(
            f"{where}: the settings of {commands[0]} stand beside it; indent the settings under "
            "the command."
        )
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError(f"{where}: expected one command with its settings, got {item!r}.")
    ((command, given),) = item.items()
    if command not in _STAGES:
        raise ValueError(f"{where}: no command {command!r}; {did_you_mean(str(command), _STAGES)}.")
    where = f"{where} ({command})"
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ValueError(f"{where}: expected a mapping of settings, got {given!r}.")
    if "output" in given:
        raise ValueError(f"{where}: its output lies in that of all, {output}; leave it out.")
    directory = output / f"{number}-{command}"
    values = dict(given)
    if before is not None and command != "pretrain":
        values.setdefault("model", str(before))
    try:
        config = as_config(_STAGES[command].kind, values, output=directory)
    except (TypeError, ValueError, OSError) as error:
        raise StageError(f"{where}: {error}") from error
    return Stage(command, config, directory, where, given)


def _check_unchanged(output: Path, stages: Sequence[Stage]) -> None:
    """Raise if a stage that has begun had other settings, or if the output is something else."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"output {output} is a file; give a directory.")
    copy = output / COPY
    if not copy.is_file():
        there = [stage.directory for stage in stages if stage.directory.exists()]
        if there:
            raise ValueError(
                f"{there[0]} is there already, and not of a pipeline. Give another output."
            )
        return
    _, earlier = read_pipeline(copy)
    begun = [stage.directory for stage in earlier if stage.directory.exists()]
    for before, now in zip_longest(earlier, stages):
        if before is None or before.directory not in begun:
            continue
        if now is None or before.command != now.command or _fixed(before) != _fixed(now):
            later = begun[begun.index(before.directory) :]
            raise ValueError(
                f"{before.directory} was begun with other settings, which are in {copy}. Restore "
                f"them to go on, or remove {' and '.join(map(str, later))} to begin that stage "
                "anew, or give another output to begin all anew."
            )


def _fixed(stage: Stage) -> dict[str, Any]:
    """The settings of a stage that must be what they were when it began."""
    free = () if stage.done else _STAGES[stage.command].free
    return {name: value for name, value in stage.given.items() if name not in free}


def _check(stage: Stage, directories: Sequence[Path]) -> None:
    """Raise if a stage cannot begin, as far as that can be told before the others have ended."""
    try:
        known_device(stage.config.device)
        _STAGES[stage.command].check(stage.config)
        model = getattr(stage.config, "model", None)
        if model is not None and Path(model) not in directories:
            Tokenizer.from_pretrained(find(model).source)  # quickly, and also from the hub
    except (TypeError, ValueError, OSError) as error:
        raise StageError(f"{stage.where}: {error}") from error


def _check_pretrain(config: PretrainConfig) -> None:
    split_documents(read_corpus(config.corpus), config.validation_fraction, config.seed)


def check_train(config: RunConfig) -> None:
    """Raise if a training could not begin: for want of its task, its reward or its texts."""
    task = tasks.make(config.task)
    if config.sft_corpus:
        read_corpus(config.sft_corpus)
    elif config.sft_coef > 0:
        check_imitable(task, "train")
    rewards.make(
        task.reward if config.reward is None else config.reward, config.timing, config.every
    )


def _pretrain(stage: Stage, console: Console) -> None:
    going_on = checkpoints_of(stage.directory).latest is not None
    pretrain(replace(stage.config, resume=going_on), console)


def _sft(stage: Stage, console: Console) -> None:
    run = RunDirectory(stage.directory)
    sft(stage.config, console, resume=run.config.is_file())


def _train(stage: Stage, console: Console) -> None:
    run = RunDirectory(stage.directory)
    train(stage.config, console, resume=run.config.is_file())


def _pretrained(record: Mapping[str, Any]) -> Reached:
    return Reached("held-out loss, nats a token", None, record["held_out_loss"])


def _supervised(record: Mapping[str, Any]) -> Reached:
    what = "held-out loss, nats a token"
    return Reached(what, record["loss_before"], record["loss_after"])


def _trained(record: Mapping[str, Any]) -> Reached:
    what = f"mean score, {record['what']}"
    return Reached(what, record["score_before"], record["score_after"], signed=True)


class _Command(NamedTuple):
    kind: type[Any]
    check: Callable[[Any], None]
    run: Callable[[Stage, Console], None]
    reached: Callable[[Mapping[str, Any]], Reached]
    free: Collection[str]


_STAGES: dict[str, _Command] = {
    "pretrain": _Command(
        PretrainConfig, _check_pretrain, _pretrain, _pretrained, FREE_IN_PRETRAINING
    ),
    "sft": _Command(SFTConfig, check_texts, _sft, _supervised, FREE_TO_CHANGE["sft"]),
    "train": _Command(RunConfig, check_train, _train, _trained, FREE_TO_CHANGE["train"]),
}


def _table(stages: Sequence[Stage], reached: Sequence[Reached]) -> Table:
    table = Table(title="What each stage reached", title_justify="left")
    for name in ("stage", "measured"):
        table.add_column(name, overflow="fold")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for stage, (what, before, after, signed) in zip(stages, reached, strict=True):
        form = "+.3f" if signed else ".3f"
        cells = ("" if figure is None else rounded(figure, form) for figure in (before, after))
        table.add_row(escape(stage.directory.name), escape(what), *cells)
    return table
