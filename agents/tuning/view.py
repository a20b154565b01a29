"""A sweep as it goes on: a table that is redrawn in the terminal, and lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agents.interrupts import to_standard_error
from agents.tuning.study import Record, best_of, score_of
from agents.tuning.trial import Outcome
from agents.watching.course import number as figure
from agents.wording import say

_AROUND = 6
"""Lines of the screen that are not for trials."""

_STYLES = {"done": "green", "runs": "cyan", "again": "yellow", "failed": "red", "lost": "red"}


@dataclass(frozen=True)
class Progress:
    """Where a trial is that has not ended.

    Attributes:
        state: What it does.
        timesteps: Tokens that it has written.
    """

    state: str
    timesteps: int = 0


class SweepView:
    """Shows the trials of a sweep.

    Args:
        console: Where.
        names: What is searched.
        total: Tokens of a trial.
    """

    def __init__(self, console: Console, names: Sequence[str], total: int) -> None:
        self._console = console
        self._names = names
        self._total = total
        self._note = ""
        self._is_over = False
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal and not console.quiet:
            self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> SweepView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        if self._live is not None:
            self._live.stop()

    def introduce(self, text: str, whole: str) -> None:
        """Say what begins, and where, a path."""
        say(self._console, text, whole=whole)

    def tell(self, message: str) -> None:
        """Say at once what is done about trials, unless all have ended; signal handlers may."""
        if self._is_over:
            return
        if self._live is None or not self._live.is_started:
            to_standard_error(message)
        else:
            self._note = message

    def warn(self, message: str) -> None:
        """Say what a person may have to do something about, above the table if there is one."""
        if self._live is None:
            to_standard_error(message)
        else:
            say(self._console, message, "yellow")

    def show(
        self, records: Sequence[Record], progress: Mapping[int, Progress], trials: int
    ) -> None:
        """Draw the table anew, if there is one; how many trials there will be is said below it."""
        if self._live is None:
            return
        most = max(self._console.height - _AROUND, 3)
        table = trials_table(self._names, records, progress, self._total, most)
        ended = sum(has_ended(record) for record in records)
        said = Text(f"{ended} of {trials} trials have ended", style="dim")
        self._live.update(Group(table, said, Text(self._note, style="yellow")))

    def event(self, number: int, what: str, values: Mapping[str, Any] | None = None) -> None:
        """Say what happened to a trial, where there is no table."""
        if self._live is None:
            settings = f": {in_words(values)}" if values else ""
            say(self._console, f"trial {number}  {what}{settings}")

    def score(self, number: int, timesteps: int, total: int, score: float) -> None:
        """Say what a trial has reached, where there is no table."""
        self.event(number, f"{timesteps:,}/{total:,} tokens  score {figure(score)}")

    def ended(self, number: int, outcome: Outcome) -> None:
        """Say how a trial ended: a failure in a terminal, too, since its message is not kept."""
        score = "" if outcome.score is None else f"  score {figure(outcome.score)}"
        message = f": {outcome.message}" if outcome.message else ""
        if self._live is None:
            self.event(number, f"{outcome.state}{score}{message}")
        elif outcome.state == "failed":
            say(self._console, f"trial {number} failed{message}", "yellow")


def trials_table(
    names: Sequence[str],
    records: Sequence[Record],
    progress: Mapping[int, Progress],
    total: int,
    most: int | None = None,
) -> Table:
    """Trials in a table: those that run, then those that ended, the best first.

    Args:
        names: What is searched.
        records: All trials.
        progress: Of those that have not ended.
        total: Tokens of a trial, unless that is searched.
        most: Rows at most.
    """
    best = best_of(records)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("tokens", "score", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    ordered = sorted(records, key=lambda each: (each.number not in progress, -score_of(each)))
    for record in ordered[:most]:
        state, tokens, test = _status(record, progress)
        score = score_of(record)
        table.add_row(
            str(record.number),
            f"[{_STYLES.get(state, 'dim')}]{state}[/]",
            *(escape(value_in_words(record.values.get(name, "-"))) for name in names),
            f"{min(tokens / record.values.get('total_timesteps', total), 1):.0%}",
            figure(score) if math.isfinite(score) else "",
            test,
            style="bold" if record is best else "",
        )
    if most is not None and len(ordered) > most:
        table.add_row("…", f"[dim]and {len(ordered) - most} more[/]")
    return table


def has_ended(record: Record) -> bool:
    """Whether a trial will not go on."""
    return record.outcome is not None and record.outcome.state != "stopped"


def _status(record: Record, progress: Mapping[int, Progress]) -> tuple[str, int, str]:
    if record.number in progress:
        return progress[record.number].state, progress[record.number].timesteps, ""
    if record.outcome is None:
        return "cut", 0, ""
    after = record.outcome.after
    test = "" if after is None else figure(after)
    return record.outcome.state, record.outcome.timesteps, test


def in_words(values: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return "  ".join(f"{name}={value_in_words(value)}" for name, value in values.items())


def value_in_words(value: Any) -> str:
    """A setting, numbers to three digits."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
