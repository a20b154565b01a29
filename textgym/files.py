"""Writing files so that nothing a person has is ever half overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic_directory(directory: str | Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary directory whose files take their places in `directory` if the block ends well.

    If the block raises, or a file cannot take its place, `directory` holds what it held before.
    Files of other names stay, so that nothing is lost to a directory that was not empty.

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
        leaving = names.union(*({path.name for path in directory.glob(glob)} for glob in stale))
        with ExitStack() as undo:
            for name in leaving:
                if os.path.lexists(directory / name):
                    _move(directory / name, old / name, undo)
            for name in names:
                _move(new / name, directory / name, undo)
            undo.pop_all()


def atomic_write(path: str | Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it; makes its directory if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(source: Path, target: Path, undo: ExitStack) -> None:
    os.replace(source, target)
    undo.callback(os.replace, target, source)
