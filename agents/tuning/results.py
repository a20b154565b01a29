"""What a sweep leaves: a row a trial, the best settings, a page, and what is said at the end."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agents.run_directory import RunDirectory
from agents.tuning.config import TuneConfig
from agents.tuning.page import sweep_page
from agents.tuning.study import Record, best_of, score_of
from agents.tuning.view import in_words, trials_table
from agents.watching.course import number as figure
from agents.wording import say
from textgym.files import atomic_write
from textgym.shell import program

TRIALS, BEST, PAGE = "trials.csv", "best.yaml", "report.html"


def trial_name(number: int) -> str:
    """The directory of a trial, inside that of its sweep."""
    return f"trial-{number:03d}"


def write_rows(
    config: TuneConfig, directory: Path, records: Sequence[Record], running: Collection[int]
) -> None:
    """Write `trials.csv` as things are, and `best.yaml`; which trials run goes by number."""
    names = [dimension.name for dimension in config.space]
    atomic_write(directory / TRIALS, as_csv(names, records, running))
    best = best_of(records)
    if best is not None:
        of_best = RunDirectory(directory / trial_name(best.number)).config
        atomic_write(directory / BEST, of_best.read_text(encoding="utf-8"))


def write_page(
    config: TuneConfig,
    directory: Path,
    records: Sequence[Record],
    importances: Mapping[str, float],
) -> None:
    """Write `report.html`."""
    atomic_write(directory / PAGE, sweep_page(config, directory.name, records, importances))


def as_csv(names: Sequence[str], records: Sequence[Record], running: Collection[int]) -> str:
    """All trials as a table; those that neither run nor have ended are `cut`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measured = ("score", "test_before", "test_after", "timesteps", "worker_deaths", "message")
    writer.writerow(["trial", "state", *names, *measured])
    for record in records:
        values = [record.values.get(name, "") for name in names]
        # One that was stopped, and goes on, has an outcome that is no longer so.
        outcome = None if record.number in running else record.outcome
        if outcome is None:
            state = "running" if record.number in running else "cut"
            ending = [max(record.looks.values(), default=""), "", "", "", record.deaths, ""]
        else:
            state = outcome.state
            numbers = (outcome.score, outcome.before, outcome.after)
            shown = ["" if each is None else each for each in numbers]
            ending = [*shown, outcome.timesteps, record.deaths, outcome.message]
        writer.writerow([record.number, state, *values, *ending])
    return text.getvalue()


def say_results(
    config: TuneConfig,
    directory: Path,
    records: Sequence[Record],
    importances: Mapping[str, float],
    console: Console,
) -> None:
    """Print all trials, the best of them with the command that repeats it, and what mattered.

    Raises:
        ValueError: If all trials failed.
    """
    names = [dimension.name for dimension in config.space]
    console.print(trials_table(names, records, {}, config.total_timesteps))
    best = best_of(records)
    where = Path(os.path.relpath(directory))
    where = min(where, directory, key=lambda path: len(str(path)))
    say(console, "trials  ", whole=str(where / TRIALS))
    say(console, "report  ", whole=str(where / PAGE))
    failed = [each.outcome for each in records if each.outcome and each.outcome.state == "failed"]
    if best is None:
        if failed and len(failed) == len(records):
            raise ValueError(f"all {len(failed)} trials failed; the last: {failed[-1].message}")
        return
    if importances:
        parts = ", ".join(f"{name} {part:.0%}" for name, part in importances.items())
        say(console, f"What mattered: {parts}")
    run = RunDirectory(where / trial_name(best.number))
    say(
        console,
        f"Best is trial {best.number}, with {config.metric} {figure(score_of(best))}: "
        f"{in_words(best.values)}",
        "bold",
    )
    say(console, "model   ", whole=str(run.model))
    again = f"{program()} train --config {shlex.quote(str(where / BEST))} --output DIR"
    say(console, "Train with these settings:", whole=again)
