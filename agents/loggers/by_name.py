"""SB3 loggers by the names of their writers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    HumanOutputFormat,
    JSONOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)
from torch.utils.tensorboard import SummaryWriter

from agents.loggers.csv_log import TIMESTEPS, CSVLog, forget_rows
from agents.loggers.wandb_log import WandbLog, import_wandb
from textgym.files import atomic_write
from textgym.registry import did_you_mean, import_object

PROGRESS, PROGRESS_JSON, LOG = "progress.csv", "progress.json", "log.txt"
"""Files that are appended to."""


def check_loggers(names: Sequence[str]) -> None:
    """Raise if one of the writers cannot be had.

    Raises:
        ValueError: If there is no such writer.
        TypeError: If what a name stands for is no `KVWriter`.
        textgym.extras.MissingExtra: If it needs a package that is not installed.
    """
    for name in names:
        if name == "wandb":
            import_wandb()
        _writer(name)


def make_logger(folder: Path, names: Sequence[str] = (), *, after: int = 0) -> Logger:
    """A logger that goes on with what a directory holds.

    Args:
        folder: Directory of the run.
        names: Its writers, beside that of `progress.csv`.
        after: Tokens at the moment from which the run goes on. What was logged later is dropped;
            where it cannot be, of TensorBoard's points, it is hidden.

    Raises:
        ValueError, TypeError, textgym.extras.MissingExtra: As `check_loggers`.
    """
    makers = [_writer(name) for name in names if name != "csv"]
    _forget(folder, after)
    writers = [CSVLog(folder / PROGRESS), *(make(folder, after) for make in makers)]
    return Logger(str(folder), writers)


def _writer(name: str) -> Callable[[Path, int], KVWriter]:
    if ":" in name:
        kind: Any = import_object(name, "logger")
        if not (isinstance(kind, type) and issubclass(kind, KVWriter)):
            raise TypeError(
                f"logger {name!r} is {kind!r}; expected a subclass of "
                "stable_baselines3.common.logger.KVWriter that takes the run's directory."
            )
        make: Callable[[str], KVWriter] = kind
        return lambda folder, after: make(str(folder))
    if name not in _WRITERS:
        raise ValueError(
            f"no logger named {name!r}; {did_you_mean(name, _WRITERS)}. Or give "
            "package.module:KVWriterClass."
        )
    return _WRITERS[name]


class _TensorBoard(TensorBoardOutputFormat):
    """SB3's writer, for a run that goes on: points after a step are hidden."""

    def __init__(self, folder: Path, after: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None)
        self._is_closed = False


class _Table(HumanOutputFormat):
    """SB3's table, with room for names: it takes two that begin alike for an error."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, max_length=80)


class _StandardOutput:
    """Standard output as it is at the moment: a live view puts itself in between."""

    def write(self, text: str) -> None:
        print(text, end="")

    def flush(self) -> None:
        print(end="", flush=True)


def _json(folder: Path, after: int) -> KVWriter:
    # SB3's own empties the file.
    writer = JSONOutputFormat(os.devnull)
    writer.file.close()
    writer.file = (folder / PROGRESS_JSON).open("a", encoding="utf-8")
    return writer


def _log(folder: Path, after: int) -> KVWriter:
    writer = _Table((folder / LOG).open("a", encoding="utf-8"))
    writer.own_file = True
    return writer


_WRITERS: dict[str, Callable[[Path, int], KVWriter]] = {
    "csv": lambda folder, after: CSVLog(folder / PROGRESS),
    "json": _json,
    "log": _log,
    "stdout": lambda folder, after: _Table(_StandardOutput()),
    "tensorboard": _TensorBoard,
    "wandb": lambda folder, after: WandbLog(folder),
}


def _forget(folder: Path, after: int) -> None:
    """Drop what files have from after a moment."""
    progress, as_json = folder / PROGRESS, folder / PROGRESS_JSON
    if progress.is_file():
        forget_rows(progress, after)
    if as_json.is_file():
        lines = as_json.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line).get(TIMESTEPS, 0) <= after]
        if len(kept) != len(lines):
            atomic_write(as_json, "".join(kept))
