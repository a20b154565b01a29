"""Ctrl-C between two steps of a training, so that none is torn apart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C fills the list that is yielded, so that a step ends whole; a second one stops it.

    The first says so on standard error.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        # Not by print: the signal may come while something else is being printed.
        os.write(2, b"\nStopping after this step; Ctrl-C again to stop now.\n")

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python delivers signals to the main thread only.
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)
