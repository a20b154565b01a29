"""Seconds of training, without what is done between two pieces of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of training, which can be stopped, and set to what a run had taken when it was cut.

    Attributes:
        wall: Seconds by the clock on the wall, up to the last stop.
        processor: Seconds of processor time in all threads, up to the last stop.
    """

    def __init__(self) -> None:
        self.wall = self.processor = 0.0
        self.go_on()

    def stop(self) -> None:
        """Count no more."""
        self.wall += time.perf_counter() - self._wall
        self.processor += time.process_time() - self._processor

    def go_on(self) -> None:
        """Count from here on."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stand still while something else is done."""
        self.stop()
        yield
        self.go_on()
