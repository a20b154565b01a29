"""What has been measured, in CSV files that are whole at any time, so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.rows import Row, read_rows, write_rows
from comparison.run import Run

_KEY = ("reward", "timing", "algorithm", "gae_lambda", "seed", "total_timesteps")


class Store:
    """Runs, their curves, the scales of the rewards and the base model, in files side by side.

    Args:
        path: The file of the runs, `NAME.csv`; `NAME_curves.csv`, `NAME_scales.csv` and
            `NAME_base.csv` are the others. What they hold is read.

    Attributes:
        runs: A row a run: what it was told, what it took, and how its texts were judged before
            and after training.
        curves: A row a rollout of a run.
        scales: A row a reward.
        base: A row for each number that is known of the base model's held-out texts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = read_rows(path)
        finished = {_key(row) for row in self.runs}
        self.curves = [row for row in read_rows(self._beside("curves")) if _key(row) in finished]
        self.scales = {row["reward"]: row for row in read_rows(self._beside("scales"))}
        self.base = {_measure(row): row for row in read_rows(self._beside("base"))}

    def has(self, run: Run) -> bool:
        """Whether a run is finished."""
        return _key(vars(run)) in {_key(row) for row in self.runs}

    def add(self, row: Row, curve: Iterable[Row]) -> None:
        """Keep a finished run."""
        told = {name: row[name] for name in _KEY}
        self.curves += [{**told, **point} for point in curve]
        self.runs.append(row)
        # The runs come last: a run without its curve would count as finished.
        write_rows(self._beside("curves"), self.curves)
        write_rows(self.path, self.runs)

    def add_scales(self, rows: Iterable[Row]) -> None:
        """Keep the scales of some rewards."""
        self.scales |= {row["reward"]: row for row in rows}
        write_rows(self._beside("scales"), list(self.scales.values()))

    def add_base(self, rows: Iterable[Row]) -> None:
        """Keep what was measured of the base model."""
        self.base |= {_measure(row): row for row in rows}
        write_rows(self._beside("base"), list(self.base.values()))

    def only(self, tokens: int, seeds: int, lambdas: Mapping[str, float]) -> None:
        """Look at runs with so many tokens, seeds below a number, and these lambdas by timing.

        The others stay in the files.
        """

        def wanted(row: Row) -> bool:
            told = (row["total_timesteps"], row["gae_lambda"])
            return bool(told == (tokens, lambdas[row["timing"]]) and row["seed"] < seeds)

        self.runs = [row for row in self.runs if wanted(row)]
        self.curves = [row for row in self.curves if wanted(row)]

    def select(self, rows: Iterable[Row], **wanted: Any) -> list[Row]:
        """The rows that have these values, in the order of their seeds."""
        found = [row for row in rows if all(row[name] == wanted[name] for name in wanted)]
        return sorted(found, key=lambda row: row["seed"])

    def column(self, name: str, **wanted: Any) -> NDArray[np.float64]:
        """One number of each run that has these values, (runs,); NaN where it is not known."""
        found = self.select(self.runs, **wanted)
        return np.array([row.get(name, np.nan) for row in found], np.float64)

    def curve(self, name: str, **wanted: Any) -> NDArray[np.float64]:
        """One number of each rollout, (runs, rollouts)."""
        rows = self.select(self.curves, **wanted)
        by_run: dict[tuple[Any, ...], list[float]] = {}
        for row in rows:
            by_run.setdefault(_key(row), []).append(row[name])
        return np.array(list(by_run.values()), np.float64)

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.stem}_{what}.csv")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _KEY)


def _measure(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["task"], row["measure"]
