"""One process at a time in the directory of a run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from agents.distributed.processes import Processes

LOCK = ".lock"

_PATIENCE = 90.0
"""Seconds in which another machine must see the lock: NFS may remember for 60 that it was not there
when it was first looked for."""

_HALF_WRITTEN = re.compile(r"\.\w+\.(csv|html|json|jsonl|png|safetensors|yaml)\.\d+")
"""Names under which `textgym.files` writes the files of a run, before it renames them."""


@contextmanager
def run_lock(directory: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a run's directory, which is made if need be, and clear what a killed process left there.

    The system gives the lock back when the process ends, in whatever way; its file goes, too,
    unless the process was killed.

    Args:
        directory: Of the run.
        patience: Seconds to wait for another process that holds it, and may be ending.

    Raises:
        BlockingIOError: If another process holds it; the message says which.
        OSError: If the directory cannot be written to; the message has the cure.
    """
    until = time.monotonic() + patience
    while True:
        file = _opened(directory)
        if _taken(file.fileno()) and _is_at(directory / LOCK, file.fileno()):
            break
        holder = file.read().strip()
        file.close()
        if time.monotonic() >= until:
            raise BlockingIOError(
                f"{directory} is being written to by another process ({holder}). Wait for it, or "
                "give another --output."
            )
        time.sleep(0.2)
    with file:
        file.truncate(0)
        file.write(this_process())
        file.flush()
        _clear(directory)
        try:
            yield
        finally:
            (directory / LOCK).unlink(missing_ok=True)


def _opened(directory: Path) -> TextIO:
    """The file of the lock, at its begin."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"nothing can be written to {directory} ({error.strerror or error}). Give another "
            "--output, or see to it that you may write there."
        ) from error
    file.seek(0)
    return file


def check_in_common(directory: Path, processes: Processes) -> None:
    """Raise unless processes, of which the first holds the lock, see the same directory.

    Raises:
        OSError: If one does not; the message has the cure.
    """
    if processes.count == 1:
        return
    holder = processes.of_first("holder of the lock", this_process())
    sees = sees_lock(directory, holder)
    answers = processes.gather("sees the lock", None if sees else this_process())
    blind = [answer for answer in answers if answer is not None]
    if blind:
        raise OSError(
            f"{directory} is not the same directory for all processes: {', '.join(blind)} did not "
            f"see what {holder} wrote there. Give an --output on a file system that all of them "
            "share, such as NFS, under the same path."
        )


def sees_lock(directory: Path, holder: str) -> bool:
    """Whether this is the directory whose lock another process holds, perhaps of another machine.

    Args:
        directory: As it is called here.
        holder: The other process, by its own `this_process`.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with suppress(OSError):  # network file systems know files too late, and too long
            if (directory / LOCK).read_text(encoding="utf-8") == holder:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


def this_process() -> str:
    """This process, as others are told of it."""
    return f"{os.getpid()} on {socket.gethostname()}"


def _taken(descriptor: int) -> bool:
    """Whether the lock could be had; where the system knows none it always can."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name: who held it before takes it away at the end."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(directory: Path) -> None:
    for half in (*directory.glob(".writing-*"), *directory.glob("*/.writing-*")):
        shutil.rmtree(half, ignore_errors=True)
    for half in directory.iterdir():
        if half.is_file() and _HALF_WRITTEN.fullmatch(half.name):
            half.unlink()
