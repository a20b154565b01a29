"""What a worker does: one trial, which is an ordinary run."""

from __future__ import annotations

import _thread
import difflib
import json
import math
import os
import socket
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from agents.config import RunConfig
from agents.reporting.progress import TIMESTEPS, read_progress
from agents.run_directory import RunDirectory
from agents.run_lock import run_lock, sees_lock
from agents.train import train
from agents.tuning.board import Report, Verdict
from agents.validation import VALIDATION_TIMESTEPS
from agents.watching.reward_log import MEAN_SCORE
from agents.watching.tap import Tap
from textgym import RewardError

MENDABLE = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError, RewardError)
"""What is raised where a person can mend it: to try again would end the same way."""

_ALL_BY = 3
"""Rows about texts by which each column has been: an update's figures come with the row after."""

_LATER = ("train/", "validation/")
"""Columns that come later, when a first update has been made, or validation prompts looked at."""

_PATIENCE = 90.0
"""Seconds in which a killed worker gives up its run: one whose cluster lost its head lives on for
another minute, in which the sweep may go on elsewhere."""


class UnfitMachine(OSError):  # noqa: N818  # says what is wrong
    """A machine of the cluster on which trials cannot run, whatever their settings."""


class UnknownMetric(ValueError):  # noqa: N818  # says what is wrong
    """The score of trials is a figure that they do not log."""


ENDS_SWEEP = (UnfitMachine, UnknownMetric)
"""What other trials would meet, too; of the latter only those with the same algorithm."""


@dataclass(frozen=True)
class Assignment:
    """What a worker needs to know of a trial.

    Attributes:
        number: Of the trial.
        config: Its settings, with its directory.
        metric: Column of its log that is its score.
        look_every: Tokens between two reports of it.
        threads: Of torch.
        has_gpu: Whether Ray has given it one.
        driver: The process that holds the lock of the sweep.
        workplace: Where the sweep was started, from which paths are read and modules imported.
    """

    number: int
    config: RunConfig
    metric: str
    look_every: int
    threads: int
    has_gpu: bool
    driver: str
    workplace: str

    @property
    def run(self) -> RunDirectory:
        """Its directory."""
        assert self.config.output is not None
        return RunDirectory(self.config.output)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: Whether it was done, pruned, stopped so that it can go on, or failed.
        score: The largest value of the metric; None if there is none.
        timesteps: Tokens of training.
        before: Mean score of the test prompts before training; None if it was not judged.
        after: The same after it.
        message: Why it failed.
    """

    state: Literal["done", "pruned", "stopped", "failed"]
    score: float | None = None
    timesteps: int = 0
    before: float | None = None
    after: float | None = None
    message: str = ""


def carry_out(assignment: Assignment, report: Callable[[Report], Verdict]) -> Outcome:
    """Train as a trial says, or go on with it from its last checkpoint.

    Args:
        assignment: The trial.
        report: Tells the driver how it does, and returns what it shall do.

    Raises:
        UnfitMachine: If this one does not see the sweep's files, or torch not the GPU that Ray has
            given the trial.
        UnknownMetric: If the metric is not among what the trial logs.
    """
    _settle(assignment)
    if assignment.has_gpu:
        check_gpu()
    run = assignment.run
    check_shared(run.path.parent, assignment.driver)
    reporter = Reporter(assignment, report)
    run.path.mkdir(exist_ok=True)
    with (run.path / "console.txt").open("a", encoding="utf-8") as file:
        console = Console(file=file, width=100)
        try:
            _train(assignment, console, reporter)
        except KeyboardInterrupt:
            state: Literal["pruned", "stopped"]
            state = "pruned" if reporter.verdict == "prune" else "stopped"
            return _measured(assignment, state)
        except ENDS_SWEEP:
            raise
        except MENDABLE as error:
            file.write(traceback.format_exc())
            return Outcome("failed", message=str(error))
    return _measured(assignment, "done")


def check_shared(directory: Path, driver: str) -> None:
    """Raise unless a sweep's directory is what the driver sees under that name."""
    if sees_lock(directory, driver):
        return
    raise UnfitMachine(
        f"{socket.gethostname()}, a machine of this Ray, does not see {directory} as the machine "
        "does where the sweep was started. Give an --output on a file system that all of them "
        "share, such as NFS, under the same path."
    )


def check_gpu() -> None:
    """Raise unless torch can use a GPU here; `auto` would take the CPU, and let the GPU idle."""
    if not torch.accelerator.is_available():
        raise UnfitMachine(
            f"{socket.gethostname()}, a machine of this Ray, gave a trial a GPU that torch "
            f"{torch.__version__} there cannot use. Install a torch for its GPUs there, or leave "
            "out --gpus-per-trial: trials then run on CPUs."
        )


class Reporter(BaseCallback):
    """Tells the driver how a trial does, and ends it when it shall end.

    Args:
        assignment: The trial.
        report: Tells it, and returns what the trial shall do.

    Attributes:
        verdict: The last answer.
    """

    def __init__(self, assignment: Assignment, report: Callable[[Report], Verdict]) -> None:
        super().__init__()
        self._assignment = assignment
        self._report = report
        self._look = 0
        self._rows = 0
        self._heard: set[str] = set()
        self.verdict: Verdict = "go on"

    def _on_training_start(self) -> None:
        self.logger.output_formats.append(Tap(self.hear))

    def _on_rollout_start(self) -> None:
        if self.verdict == "go on":
            self.verdict = self._report(Report(self._assignment.number, self.num_timesteps))
        if self.verdict != "go on":
            # As Ctrl-C would: saved, then stopped. A signal would not do: Ray blocks this one.
            _thread.interrupt_main()

    def _on_step(self) -> bool:
        return True

    def hear(self, row: dict[str, Any]) -> None:
        """Take a row of the log, and report the score that it may have."""
        metric = self._assignment.metric
        self._heard.update(row)
        self._rows += MEAN_SCORE in row
        self._check_metric()
        if metric not in row or self.verdict != "go on":
            return
        of_validation = metric.startswith("validation/")
        timesteps = int(row.get(VALIDATION_TIMESTEPS if of_validation else TIMESTEPS, 0))
        look = timesteps // self._assignment.look_every
        if look > self._look:
            self._look = look
            self.verdict = self._report(
                Report(self._assignment.number, timesteps, float(row[metric]), look)
            )

    def _check_metric(self) -> None:
        """Raise if the metric is nothing that is logged, as soon as this can be known."""
        metric, heard = self._assignment.metric, self._heard
        prefix = metric.partition("/")[0] + "/"
        may_come = prefix in _LATER and not any(name.startswith(prefix) for name in heard)
        if self._rows >= _ALL_BY and metric not in heard and not may_come:
            raise unknown_metric(metric, heard, self._assignment.run.progress)


def unknown_metric(metric: str, logged: Collection[str], progress: Path) -> UnknownMetric:
    """The error about a metric that is not among the columns that are logged in a file."""
    near = difflib.get_close_matches(metric, logged)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return UnknownMetric(
        f"metric={metric!r}: trials log no such column of progress.csv. {meant}All are in the "
        f"first line of {progress}"
    )


def _settle(assignment: Assignment) -> None:
    """Be where the sweep was started, with the threads and devices that the trial has."""
    if Path(assignment.workplace).is_dir():
        os.chdir(assignment.workplace)
    if assignment.workplace not in sys.path:  # "module:function" rewards
        sys.path.insert(0, assignment.workplace)
    torch.set_num_threads(assignment.threads)
    if not assignment.has_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _train(assignment: Assignment, console: Console, reporter: Reporter) -> None:
    """Train; wait if a worker that is being killed still holds the run."""
    with run_lock(assignment.run.path, _PATIENCE):
        resume = assignment.run.config.is_file()
    train(assignment.config, console, resume=resume, callbacks=[reporter])


def _measured(assignment: Assignment, state: Literal["done", "pruned", "stopped"]) -> Outcome:
    """The outcome of a trial by the files of its run, which tell of all its attempts."""
    run = assignment.run
    rows = read_progress(run.progress) if run.progress.is_file() else []
    scores = [row[assignment.metric] for row in rows if assignment.metric in row]
    scores = [score for score in scores if math.isfinite(score)]
    timesteps = int(max((row.get(TIMESTEPS, 0.0) for row in rows), default=0.0))
    if state == "done" and not scores:
        columns = {column for row in rows for column in row}
        if assignment.metric not in columns:
            raise unknown_metric(assignment.metric, columns, run.progress)
        message = f"{assignment.metric} was never a number, by {run.progress}."
        return Outcome("failed", None, timesteps, message=message)
    judged = json.loads(run.result.read_text(encoding="utf-8")) if state == "done" else {}
    return Outcome(
        state,
        max(scores, default=None),
        timesteps,
        judged.get("score_before"),
        judged.get("score_after"),
    )
