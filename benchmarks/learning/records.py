"""What has been measured, a row a point of a learning curve, whole at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison.rows import Row, read_rows, write_rows

from learning.trial import Point, Trial


class Records:
    """The points of all runs, in a CSV file.

    Args:
        path: The file. What it holds is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: dict[tuple[Any, ...], list[Row]] = {}
        names = list(_told(Trial("", "", 0, 0, "")))
        for row in read_rows(path):
            self._runs.setdefault(tuple(row[name] for name in names), []).append(row)

    def has(self, trial: Trial) -> bool:
        """Whether a run is finished."""
        return _key(trial) in self._runs

    def points(self, trial: Trial) -> list[Row]:
        """The points of a finished run."""
        return self._runs[_key(trial)]

    def add(self, trial: Trial, points: Sequence[Point]) -> None:
        """Keep a finished run."""
        self._runs[_key(trial)] = [{**_told(trial), **asdict(point)} for point in points]
        write_rows(self.path, [row for run in self._runs.values() for row in run])


def _told(trial: Trial) -> Row:
    return {**asdict(trial), "greedy": int(trial.greedy)}  # as it is read from a file


def _key(trial: Trial) -> tuple[Any, ...]:
    return tuple(_told(trial).values())
