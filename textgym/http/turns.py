"""Calls that take turns, while those that wait hear that others get on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeAlias

_APART = 0.1
"""Seconds from one word to those who wait to the next: a quick service has more to do."""

_Place: TypeAlias = "SimpleQueue[bool]"
"""Where one who waits hears of every turn that ends, and whether the next is theirs."""


class Turns:
    """So many calls are under way at a time; the others wait in line.

    Args:
        most: Calls that are under way at a time.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._line: deque[_Place] = deque()
        self._lock = threading.Lock()
        self._told = -_APART

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    @contextmanager
    def turn(self, gets_on: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn, and have it.

        Args:
            gets_on: Called by one that has to wait as turns of others end, and when it has its
                own. Not where no turn ends: then nothing gets on. What it raises gives its place
                to others.
        """
        place: _Place = SimpleQueue()
        with self._lock:
            self._line.append(place)
            self._let_in()
        try:
            its_turn = not place.empty() and place.get()
            while not its_turn:
                its_turn = place.get()
                gets_on()
            yield
        finally:
            self._leave(place)

    def _let_in(self) -> None:
        while self._free and self._line:
            self._free -= 1
            self._line.popleft().put(True)

    def _leave(self, place: _Place) -> None:
        with self._lock:
            if place in self._line:
                self._line.remove(place)
                return
            self._free += 1
            self._let_in()
            if time.monotonic() - self._told >= _APART:
                self._told = time.monotonic()
                for waiting in self._line:
                    waiting.put(False)
