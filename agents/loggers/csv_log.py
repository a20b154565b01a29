"""A CSV log that goes on with the rows it has, takes new columns, and is whole at any moment."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from textgym.files import atomic_write

TIMESTEPS = "time/total_timesteps"
"""The column that says when a row was written."""


class CSVLog(KVWriter):
    """Writes figures and texts as rows of a CSV file.

    SB3's own empties the file when it opens it, rewrites it in place when a column is new, and
    puts new columns in an order that differs from process to process. Here columns are in the
    order of their names, those that come later behind them, and a process that is killed leaves a
    log that can be read. Pictures and arrays are left out.

    Args:
        path: The file; if it is there, its rows stay.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if self._path.is_file():
            forget_rows(self._path)
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._columns, _ = _parsed(self._path.read_text(encoding="utf-8"))

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Write a row; see SB3."""
        kept = filter_excluded_keys(key_values, key_excluded, "csv")
        cells = {key: str(value) for key, value in kept.items() if np.isscalar(value)}
        new = sorted(cells.keys() - set(self._columns))
        if new:
            self._file.close()
            _, rows = _parsed(self._path.read_text(encoding="utf-8"))
            self._columns += new
            padding = [""] * len(new)
            _write(self._path, self._columns, ([*row, *padding] for row in rows))
            self._file = self._path.open("a", encoding="utf-8", newline="")
        self._file.write(_as_text([[cells.get(column, "") for column in self._columns]]))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def forget_rows(path: Path, after: int | None = None) -> None:
    """Drop the rows that were written after so many tokens, and one that was torn.

    Args:
        path: The log.
        after: Tokens at the moment from which a run goes on; None to drop only what was torn.
    """
    written = path.read_bytes()  # a torn row may end within a character
    whole = written[: written.rfind(b"\n") + 1]
    columns, rows = _parsed(whole.decode())
    kept = [row for row in rows if len(row) == len(columns)]
    if after is not None and TIMESTEPS in columns:
        at = columns.index(TIMESTEPS)
        kept = [row for row in kept if int(row[at] or 0) <= after]
    if len(kept) < len(rows) or len(whole) < len(written):
        _write(path, columns, kept)


def _parsed(text: str) -> tuple[list[str], list[list[str]]]:
    """The columns of a log and its rows; none of one that is empty."""
    columns, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [[]]
    return columns, rows


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    atomic_write(path, _as_text([columns, *rows] if columns else []))


def _as_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
