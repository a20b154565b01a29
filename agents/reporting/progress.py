"""The log of a run, as SB3 writes it."""

from __future__ import annotations

import csv
from pathlib import Path

TIMESTEPS = "time/total_timesteps"
"""The column with the tokens that were written in training by then."""


def read_progress(path: Path) -> list[dict[str, float]]:
    """The rows of SB3's `progress.csv`, without the cells that are empty.

    A last line that was not written to its end, as by a run that was killed, is left out.

    Raises:
        ValueError: If a cell is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = csv.DictReader(lines)
    try:
        return [{key: float(value) for key, value in row.items() if value} for row in rows]
    except (TypeError, ValueError) as error:  # a row that is longer than the header is a list
        raise ValueError(f"{path} is no log of a run: line {rows.line_num}: {error}") from error
