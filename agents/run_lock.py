"""One process at a time in the directory of a run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"

_HALF_WRITTEN = re.compile(r"\.\w+\.(csv|html|json|jsonl|png|safetensors|yaml)\.\d+")
"""Names under which `textgym.files` writes the files of a run, before it renames them."""


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold a run's directory, which is made if need be, and clear what a killed process left there.

    The system gives the lock back when the process ends, in whatever way; its file goes, too,
    unless the process was killed.

    Raises:
        BlockingIOError: If another process holds it; the message has its number.
        OSError: If the directory cannot be written to; the message has the cure.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK).open("a+", encoding="ascii")
    except OSError as error:
        raise OSError(
            f"nothing can be written to {directory} ({error.strerror or error}). Give another "
            "--output, or see to it that you may write there."
        ) from error
    with file:
        file.seek(0)
        holder = file.read().strip()
        if not _taken(file.fileno()) or not _is_at(directory / LOCK, file.fileno()):
            raise BlockingIOError(
                f"{directory} is being written to by another process ({holder}). Wait for it, or "
                "give another --output."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _clear(directory)
        try:
            yield
        finally:
            (directory / LOCK).unlink(missing_ok=True)


def _taken(descriptor: int) -> bool:
    """Whether the lock could be had; where the system knows none it always can."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
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
