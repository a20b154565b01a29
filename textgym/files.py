"""Writing files so that nothing a person has is ever half overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic_directory(directory: str | Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary directory whose files take their places in `directory` if the block ends well.

    If the block raises, or a file cannot take its place, `directory` holds what it held before.
    If the program is killed meanwhile, each file is the old one or the new one, and whole. Files
    of other names stay, so that nothing is lost to a directory that was not empty.

    Args:
        directory: Where the files are wanted; made if it is not there.
        stale: Globs of files that would contradict the new ones, such as the second half of
            weights that now are one file; these go.

    Yields:
        The temporary directory, inside `directory` so that renaming is all it takes.

    Raises:
        FileExistsError: If `directory` is a file.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".writing-", dir=directory) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        old.mkdir()
        yield new
        names = {path.name for path in new.iterdir()}
        leaving = {path.name for glob in stale for path in directory.glob(glob)} - names
        mode = _usual_mode(Path(temporary))
        for name in names:
            if (new / name).is_file():
                (new / name).chmod(mode)
                sync(new / name)
        with ExitStack() as undo:
            for name in names:
                _keep(directory / name, old / name, undo)
                _move(new / name, directory / name, undo)
            for name in leaving:
                _move(directory / name, old / name, undo)
            undo.pop_all()
        sync(directory)


def atomic_write(path: str | Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it; makes its directory if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _renamed_to(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def durable_write(path: str | Path, data: bytes) -> None:
    """Write a file in a directory that is there; it is on the disk when this returns.

    Under a temporary name, synced, renamed: it is the old one or the new one, and outlives a loss
    of power.
    """
    path = Path(path)
    with _renamed_to(path) as temporary:
        temporary.write_bytes(data)
        sync(temporary)
    sync(path.parent)


@contextmanager
def durable_file(path: str | Path) -> Iterator[Path]:
    """As `durable_write`, for what another library writes.

    Args:
        path: The file, in a directory that is there.

    Yields:
        Where to write it: if the block ends well it takes its place.
    """
    path = Path(path)
    # A directory, since libraries may have temporary names of their own.
    with TemporaryDirectory(prefix=".writing-", dir=path.parent) as directory:
        temporary = Path(directory, path.name)
        mode = _usual_mode(Path(directory))
        yield temporary
        temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
    sync(path.parent)


def _usual_mode(directory: Path) -> int:
    """Who may read a new file here, by the umask: safetensors makes its files for the owner alone.

    Args:
        directory: A temporary one.
    """
    probe = directory / ".mode"
    probe.touch()
    return probe.stat().st_mode


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows knows no such thing
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say what had no room
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _keep(path: Path, copy: Path, undo: ExitStack) -> None:
    """Keep what is there a second time, to be put back; a file also stays in its place."""
    if not os.path.lexists(path):
        return
    if path.is_dir():
        _move(path, copy, undo)  # the new one cannot be put over it
        return
    try:
        os.link(path, copy, follow_symlinks=False)
    except OSError:  # not every file system has links
        shutil.copy2(path, copy, follow_symlinks=False)
    undo.callback(os.replace, copy, path)


def _move(source: Path, target: Path, undo: ExitStack) -> None:
    os.replace(source, target)
    undo.callback(os.replace, target, source)
