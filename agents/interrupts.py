"""Ctrl-C and SIGTERM between two steps of a training, so that none is torn apart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

_ONE_PRESS = 0.5
"""Seconds after the first in which another is taken for the same: keys repeat, and programs that
start others pass on what the terminal has told these already."""

_NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(KeyboardInterrupt):
    """Ctrl-C, and it was said how to go on."""


def to_standard_error(message: str) -> None:
    """Write a line past whatever Python has in its buffers, as a signal handler must."""
    os.write(2, f"\n{message}\n".encode())


@contextmanager
def interrupts(
    what: str = "Stopping after this step", tell: Callable[[str], None] = to_standard_error
) -> Iterator[list[int]]:
    """Ctrl-C fills the list that is yielded, so that a step ends whole; a second one stops it.

    The first says so. SIGTERM, by which a cluster takes a machine back, does the same, unless
    another library has a use for it.

    Args:
        what: What is done about the first.
        tell: Says it. It must not print: the signal may come while something else is printed.
    """
    received: list[int] = []
    first = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = monotonic()
        if received and now - first < _ONE_PRESS:
            return
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        first = now
        tell(f"{what}; {_NAMES[number]} again to stop now.")

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python delivers signals to the main thread only.
        return
    noted = [signal.SIGINT]
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        noted.append(signal.SIGTERM)
    previous = {number: signal.signal(number, note) for number in noted}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
