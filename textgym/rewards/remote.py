"""What scores that are made elsewhere have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from textgym.completion import Sample

T = TypeVar("T")


def distinct(samples: Sequence[Sample], *, text_only: bool) -> tuple[list[Sample], list[int]]:
    """Samples without repetition, and which of them each of the given ones is.

    Args:
        samples: The samples.
        text_only: Whether those that differ in their token ids alone are the same.
    """
    places: dict[Any, int] = {}
    firsts: list[Sample] = []
    which: list[int] = []
    for sample in samples:
        key = (
            sample.prompt,
            sample.text,
            sample.reference,
            id(sample.columns),  # of one prompt they are one object; what they hold has no hash
            tuple(sample.turns),
            sample.continues,
            () if text_only else tuple(sample.token_ids),
        )
        if key not in places:
            places[key] = len(firsts)
            firsts.append(sample)
        which.append(places[key])
    return firsts, which


class DaemonThreads:
    """Runs calls in threads that do not keep a program from ending, unlike those of a pool.

    Args:
        most: Calls that run at a time; others wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._started = 0
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have something called; what it returns or raises is the result of the future."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        with self._lock:
            too_few = not self._idle.acquire(blocking=False) and self._started < self._most
            self._started += too_few
        if too_few:
            threading.Thread(target=self._work, name="remote score", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # it is raised where the result is taken
                    future.set_exception(error)
            del future, call  # or what was asked last would be kept until the next call
            self._idle.release()
