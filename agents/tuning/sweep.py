"""The driver of a sweep: gives trials out, hears how they do, and keeps what came of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError, TaskCancelledError
from rich.console import Console

from agents.interrupts import Stopped, interrupts
from agents.pipeline import check_train
from agents.ray_cluster import ClusterGone, connected, described
from agents.ray_lost import LOST
from agents.run_directory import RunDirectory
from agents.run_file import FREE_TO_CHANGE, load_config, save_config
from agents.run_lock import run_lock, this_process
from agents.tuning.board import Report
from agents.tuning.config import TuneConfig
from agents.tuning.placement import BOARD_LOST, Placement
from agents.tuning.results import say_results, trial_name, write_page, write_rows
from agents.tuning.study import Study
from agents.tuning.trial import ENDS_SWEEP, Assignment, Outcome, UnknownMetric
from agents.tuning.view import Progress, SweepView, has_ended
from agents.wording import say
from textgym.shell import program

_WAITS = "waits"
"""The state of a trial of which nothing has been heard yet."""

_RUNS = "runs"
"""The state of one that was heard of."""


def tune(config: TuneConfig, console: Console | None = None, *, resume: bool = False) -> Path:
    """Search as the config says, showing progress, and return the sweep's directory.

    Each trial is a run in a directory `trial-000` of its own, as `train` leaves it. Beside them are
    `config.yaml` (of the sweep), `trials.csv` (a row a trial), `best.yaml` (the settings of the
    best), `report.html` and Optuna's `study.journal`.

    A trial whose worker dies goes on from its last checkpoint, `config.retries` times at most; one
    that raises what a person must mend has failed, and the sweep goes on.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the sweep in `config.output`: trials that were cut go on from their last
            checkpoints, and those that have ended are not run again.

    Raises:
        ClusterGone: If there is no Ray any more; trials that have not ended are cut.
        ConnectionError: If there is no Ray at `config.address`.
        FileExistsError: If the directory holds a sweep already, and `resume` is not set.
        FileNotFoundError: If `resume` is set and there is no sweep.
        KeyboardInterrupt: Ctrl-C that cut trials, after all of them have saved.
        UnfitMachine: If a machine of the cluster does not see the directory, or has no GPU that
            torch can use, and trials want one.
        UnknownMetric: If the metric is not among what trials log.
        ValueError: If a sweep is to go on with other settings, or no trial came to its end.
    """
    console = console or Console()
    output = config.output or Path("runs") / f"tune-{datetime.now():%Y%m%d-%H%M%S}"
    run = RunDirectory(Path(os.path.abspath(output)))
    if resume:
        check_resumable(run)
        _check_same(config, run)
    else:
        run.check_new("tune")
        _check_trials(config)
    if resume and _is_over(config, run, console):
        return run.path
    chat = Console(quiet=True) if config.quiet else console
    view = SweepView(chat, [each.name for each in config.space], config.total_timesteps)
    what = "Stopping: trials end their update and save"
    # To the end of Ray's: who presses Ctrl-C when all is written has cut nothing.
    with interrupts(what, view.tell) as interrupted, connected(config.address, wanted_by="a sweep"):
        placement = Placement(config)
        if config.address is not None:
            say(chat, described(config.address))
        with run_lock(run.path):  # which makes the directory: not before there is room for trials
            save_config(config, run.config, "tune")
            is_over = _Sweep(config, run.path, placement, console, view).run(interrupted)
    if interrupted and not is_over:
        raise Stopped
    return run.path


def check_resumable(run: RunDirectory) -> None:
    """Raise if there is no sweep in a directory."""
    run.check_resumable()


def _check_same(config: TuneConfig, run: RunDirectory) -> None:
    """Raise if a sweep is to go on with settings that are not its own."""
    own = load_config(run.config, TuneConfig, "tune")
    free = FREE_TO_CHANGE["tune"]
    changed = {name: getattr(config, name) for name in (*free, "output")}
    if replace(own, **changed) != config:
        raise ValueError(
            f"the sweep in {run.path} has other settings, which are in {run.config}. It goes on "
            f"with its own, but for {', '.join(free)}."
        )


def _is_over(config: TuneConfig, run: RunDirectory, console: Console) -> bool:
    """Whether a sweep has nothing left to do; if so, it is said, with what came of it."""
    with run_lock(run.path):
        study = Study(config, run.path)
        if study.unfinished or study.left:
            return False
        more = "--trials N tries more" if config.grid is None else "all combinations are tried"
        say(console, f"Nothing is left to do; {more}.")
        _write_results(config, run.path, study)
        say_results(config, run.path, study.records, study.importances(), console)
    return True


def _write_results(config: TuneConfig, directory: Path, study: Study) -> None:
    """Write what a sweep leaves of which no trial runs."""
    records = study.records
    write_rows(config, directory, records, ())
    write_page(config, directory, records, study.importances())


def _check_trials(config: TuneConfig) -> None:
    """Raise if trials could not begin: for want of a task, a reward or texts."""
    checked = []
    for example in config.examples:
        what = [example.task, example.reward, example.sft_corpus, example.sft_coef]
        if what not in checked:
            check_train(example)
            checked.append(what)


class _Sweep:
    """A sweep as it goes on.

    Args:
        config: The settings.
        directory: Where it is.
        placement: Where its trials run.
        console: Where its results are shown.
        view: Shows its course.
    """

    def __init__(
        self,
        config: TuneConfig,
        directory: Path,
        placement: Placement,
        console: Console,
        view: SweepView,
    ) -> None:
        self._config = config
        self._directory = directory
        self._placement = placement
        self._console = console
        self._study = Study(config, directory)
        self._waiting = self._study.unfinished
        self._running: dict[Any, Assignment] = {}
        self._progress: dict[int, Progress] = {}
        self._deaths: dict[int, int] = {}
        self._view = view
        self._trials = self._study.left + len(self._study.records)
        self._broken: BaseException | None = None
        self._has_room = True
        self._stopping = False
        self._has_algorithms = any(each.name == "algo" for each in config.space)

    def run(self, interrupted: Sequence[int]) -> bool:
        """Run all trials that have not ended; then say which was best.

        Args:
            interrupted: Is filled when trials shall save and stop.

        Returns:
            Whether nothing is left to do.
        """
        self._introduce()
        with self._view:
            try:
                self._drive(interrupted)
            except ClusterGone as error:
                self._running.clear()
                self._broken = ClusterGone(f"{error}; {self._how_to_go_on}")
                self._broken.__cause__ = error.__cause__
        _write_results(self._config, self._directory, self._study)
        if self._broken is not None:
            raise self._broken
        return self._say_results()

    def _introduce(self) -> None:
        config = self._config
        ended = sum(map(has_ended, self._study.records))
        over = f", {ended} of them over" if ended else ""
        has_one_length = all(each.name != "total_timesteps" for each in config.space)
        length = f" of {config.total_timesteps:,} tokens" if has_one_length else ""
        trials = f"{self._trials} trial{'s' * (self._trials != 1)}{length}{over}"
        self._view.introduce(
            f"{trials}, {self._placement.at_once} at a time. Writing to", str(self._directory)
        )

    def _drive(self, interrupted: Sequence[int]) -> None:
        """Give trials out, hear them and take what comes of them, until none runs."""
        while True:
            if interrupted or self._broken is not None:
                self._stop()
            self._placement.look()
            self._look_for_room()
            self._give_out()
            self._view.show(self._study.records, self._progress, self._trials)
            if not self._running:
                return
            # A board that begins anew must hear it, too: it is said every time.
            for report in self._placement.reports(stopping=self._stopping):
                self._hear(report)
            for ref in self._placement.ended(self._running):
                self._land(ref)

    def _say_results(self) -> bool:
        """Say what came of it; returns whether nothing is left to do."""
        study = self._study
        say_results(
            self._config, self._directory, study.records, study.importances(), self._console
        )
        cut, left = len(study.unfinished), study.left
        if cut or left:
            say(self._console, f"Trials cut: {cut}, not begun: {left}. Go on:", whole=self._again)
        return not (cut or left)

    @property
    def _again(self) -> str:
        return f"{program()} tune --resume {shlex.quote(str(self._directory))}"

    @property
    def _how_to_go_on(self) -> str:
        if self._config.address is None:
            return f"go on with: {self._again}"
        elsewhere = "another --address (None for this machine)"
        return f"when it is back, or with {elsewhere}, go on with: {self._again}"

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            for ref, assignment in self._running.items():
                if self._progress[assignment.number].state != _RUNS:  # waits for room, if not long
                    ray.cancel(ref)

    def _look_for_room(self) -> None:
        """Say so when no machine can hold a trial, and when one can again: clusters grow."""
        has_room = self._placement.has_room
        if has_room != self._has_room and not self._stopping:
            self._has_room = has_room
            self._view.warn(
                "Now there is a machine that can hold a trial."
                if has_room
                else self._placement.want
            )

    def _give_out(self) -> None:
        while not self._stopping and len(self._running) < self._placement.at_once:
            if self._waiting:
                self._begin(self._waiting.pop(0))
            elif self._study.left:
                self._begin(self._study.begin())
            else:
                return

    def _begin(self, number: int) -> None:
        """Give a trial out, unless its settings are refused."""
        values = self._study.values(number)
        try:
            config = self._config.run_config(values, self._directory / trial_name(number))
        except (TypeError, ValueError) as error:
            self._end(number, Outcome("failed", message=str(error)))
            return
        assignment = Assignment(
            number,
            config,
            self._config.metric,
            self._config.look_every,
            self._config.cpus_per_trial,
            self._config.gpus_per_trial > 0,
            this_process(),
            os.getcwd(),
        )
        self._progress[number] = Progress(_WAITS)
        begins = "goes on" if assignment.run.config.is_file() else "begins"
        self._view.event(number, begins if self._has_room else _WAITS, values)
        self._running[self._placement.begin(assignment)] = assignment
        self._write_rows()

    def _hear(self, report: Report) -> None:
        number = report.number
        totals = {each.number: each.config.total_timesteps for each in self._running.values()}
        if number not in totals:
            return  # said just before it ended
        before = self._progress[number].timesteps
        self._progress[number] = Progress(_RUNS, max(report.timesteps, before))
        if report.score is not None:
            prune = self._study.hear(report)
            self._view.score(number, report.timesteps, totals[number], report.score)
            self._placement.answer(number, "prune" if prune else "go on")

    def _land(self, ref: Any) -> None:
        """Take the outcome of a trial, or try it again."""
        assignment = self._running.pop(ref)
        number = assignment.number
        try:
            self._end(number, ray.get(ref))
        except LOST as error:
            self._lost(assignment, error)
        except TaskCancelledError:  # has not ended: --resume takes it up
            self._progress.pop(number)
        except RayTaskError as error:
            if isinstance(error.cause, BOARD_LOST):
                self._lost(assignment, error.cause)
                return
            if isinstance(error.cause, UnknownMetric) and self._has_algorithms:
                self._end(number, Outcome("failed", message=str(error.cause)))
                return
            if isinstance(error.cause, ENDS_SWEEP):
                self._broken = error.cause
                self._progress.pop(number, None)
                return
            # What nobody foresaw: the trial's log has all of it.
            log = assignment.run.path / "console.txt"
            if log.parent.is_dir():
                with log.open("a", encoding="utf-8") as file:
                    file.write(str(error))
            message = f"{type(error.cause).__name__}: {error.cause}; see {log}"
            self._end(number, Outcome("failed", message=message))

    def _lost(self, assignment: Assignment, error: BaseException) -> None:
        number = assignment.number
        self._study.died(number)
        deaths = self._deaths[number] = self._deaths.get(number, 0) + 1
        why = type(error).__name__
        if self._stopping or deaths > self._config.retries:
            # It has not ended: --resume takes it up again.
            self._progress[number] = Progress("lost")
            self._view.event(number, f"lost its worker {deaths} times ({why}), and waits")
            return
        self._progress[number] = Progress("again")  # from fewer tokens than it had
        retry = f"({why}; {deaths} of {self._config.retries})"
        self._view.event(number, f"lost its worker, and goes on from its checkpoint {retry}")
        self._running[self._placement.begin(assignment)] = assignment

    def _end(self, number: int, outcome: Outcome) -> None:
        self._study.end(number, outcome)
        self._progress.pop(number, None)
        self._view.ended(number, outcome)
        self._write_rows()

    def _write_rows(self) -> None:
        running = {assignment.number for assignment in self._running.values()}
        write_rows(self._config, self._directory, self._study.records, running)
