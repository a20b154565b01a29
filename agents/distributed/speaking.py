"""Which process says what is wrong, before those that a launcher began work together."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from agents.distributed.launcher import launched, local_rank

A_MOMENT = 5.0
"""Seconds in which a launcher surely ends the other processes when the first has ended."""


@contextmanager
def after_the_first() -> Iterator[None]:
    """Let the first process of a machine say first what is wrong, parser's messages included."""
    if not launched() or local_rank() == 0:
        yield
        return
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    except (Exception, SystemExit):
        let_the_first_speak()
        raise
    finally:
        sys.stderr.write(said.getvalue())


def let_the_first_speak() -> None:
    """Wait, unless this is the first process of its machine, for the launcher to end this one.

    What is wrong before they work together most often is so in all of them, and the launcher ends
    the others when the first has ended. What only this one has wrong is said a moment later.
    """
    if launched() and local_rank() > 0:
        time.sleep(A_MOMENT)
