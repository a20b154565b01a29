"""A directory of checkpoints, of which the newest few are kept."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from textgym.files import sync

_UNFINISHED = "."
"""What the names of directories begin with that are being written or removed."""

_NAME = re.compile(r"\d{12,}(-\d{4,})?")
"""The name of a checkpoint: tokens of training, and which of that moment it is."""


class Checkpoints:
    """Checkpoints in a directory, one a subdirectory, named by the tokens of training.

    Whatever happens while one is written, those before it stay as they are: it is written under
    another name, put on the disk, and renamed.

    Args:
        path: The directory.
        keep: How many of them are kept, the newest.
    """

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.keep = keep

    @property
    def all(self) -> list[Path]:
        """The checkpoints that are whole, the oldest first."""
        if not self.path.is_dir():
            return []
        found = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(path for path in found if path.is_dir())

    @property
    def latest(self) -> Path | None:
        """The newest one; None if there is none."""
        return self.all[-1] if self.all else None

    def write(self, timesteps: int, fill: Callable[[Path], None]) -> Path:
        """Add a checkpoint, and remove those that are too many.

        Args:
            timesteps: Tokens of training.
            fill: Writes its files into an empty directory, and syncs them.

        Returns:
            Where it is.

        Raises:
            OSError: If it cannot be written; those that were there stay.
        """
        if not self.path.is_dir():
            self.path.mkdir(parents=True)
            sync(self.path.parent)
        for left in self.path.iterdir():  # by a run that was killed
            if left.name.startswith(_UNFINISHED) and _NAME.fullmatch(left.name[1:]):
                shutil.rmtree(left)
        checkpoint = self.path / self._name(timesteps)
        temporary = self.path / f"{_UNFINISHED}{checkpoint.name}"
        temporary.mkdir()
        try:
            fill(temporary)
            sync(temporary)
            os.rename(temporary, checkpoint)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(self.path)
        for old in self.all[: -self.keep]:
            leaving = old.with_name(f"{_UNFINISHED}{old.name}")
            os.rename(old, leaving)  # so that what is half removed is no checkpoint
            shutil.rmtree(leaving, ignore_errors=True)
        return checkpoint

    def remove(self) -> None:
        """Remove all of them: what they were for is done."""
        leaving = self.path.with_name(f"{_UNFINISHED}{self.path.name}")
        shutil.rmtree(leaving, ignore_errors=True)
        if self.path.is_dir():
            os.rename(self.path, leaving)  # so that what is half removed is no checkpoint
            shutil.rmtree(leaving)

    def _name(self, timesteps: int) -> str:
        """A name that sorts behind all that are there."""
        name = f"{timesteps:012d}"
        same = [path.name for path in self.all if path.name.startswith(name)]
        if not same:
            return name
        number = int(same[-1].partition("-")[2] or 1)
        return f"{name}-{number + 1:04d}"


def tokens_of(checkpoint: Path) -> int:
    """After how many tokens of training a checkpoint was made."""
    return int(checkpoint.name.partition("-")[0])
