"""Commands that a person is told to type, so that they can be pasted where this one was typed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """The command line of this package as it was called: `textgym`, or `.venv/bin/textgym`."""
    called = Path(sys.argv[0])
    if called.stem == "textgym":
        return _typed(called)
    if called.parts[-2:] == ("agents", "cli.py"):
        return f"{_typed(Path(sys.executable))} -m agents.cli"
    return "textgym"


def pip_install(what: str) -> str:
    """How to install something for the Python that runs now, whichever environment is active.

    Args:
        what: What to give to `pip install`. Of an extra of ours, `'textgym[metrics]'`: pip takes
            this package as it is installed, from a clone too, and adds what the extra needs.
    """
    return f"{_typed(Path(sys.executable))} -m pip install {what}"


def _typed(path: Path) -> str:
    """A program's path as one would type it: its name if the shell finds it by that."""
    absolute = os.path.abspath(path)  # links stay: that of an environment's Python is its own
    found = shutil.which(path.name)
    if found is not None and os.path.abspath(found) == absolute:
        return shlex.quote(path.name)
    relative = os.path.relpath(absolute)
    if os.sep not in relative:
        relative = os.path.join(os.curdir, relative)
    return shlex.quote(min(absolute, relative, key=len))
