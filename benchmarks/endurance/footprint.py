"""What a process holds: memory, files, threads, objects."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Footprint(NamedTuple):
    """What a process held at one time.

    Attributes:
        done: Steps or updates by then.
        seconds: Since the run began.
        resident_mb: Resident memory, in megabytes.
        files: Open file descriptors.
        threads: Threads, those of native libraries too.
        objects: Objects that the garbage collector knows: containers, instances, tensors.
        blocks: All blocks of memory of Python's own allocator, numbers and strings among them.
    """

    done: int
    seconds: float
    resident_mb: float
    files: int
    threads: int
    objects: int
    blocks: int


def _give_back() -> None:
    """Let the C library give free memory back to the system, which it may keep for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


class Watch:
    """Notes the footprint of this process every so often. Linux only: it reads `/proc`.

    Args:
        total: Steps or updates of the run.
        samples: How often it looks, at even distances, the first time before the run.
    """

    def __init__(self, total: int, samples: int) -> None:
        self.footprints: list[Footprint] = []
        self._every = max(total // samples, 1)
        self._kinds: list[Counter[str]] = []
        self._began = time.perf_counter()
        self._half, self._total = total // 2, total
        self.look(0)

    def count(self, done: int) -> None:
        """Say how many are done; it looks if it is time."""
        if done % self._every == 0:
            self.look(done)

    def look(self, done: int) -> None:
        """Note the footprint, without what only waits to be collected, or used again."""
        gc.collect()
        _give_back()
        objects = gc.get_objects()
        status = Path("/proc/self/statm").read_text().split()
        self.footprints.append(
            Footprint(
                done,
                round(time.perf_counter() - self._began, 2),
                round(int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 3),
                len(os.listdir("/proc/self/fd")),
                len(os.listdir("/proc/self/task")),
                len(objects),
                sys.getallocatedblocks(),
            )
        )
        if (done >= self._half and not self._kinds) or done >= self._total:
            self._kinds.append(Counter(type(thing).__qualname__ for thing in objects))

    def grown(self, kinds: int = 5) -> list[tuple[str, int]]:
        """The kinds of objects of which there are more than in the middle of the run, and how many.

        What comes with the watching itself is left out.
        """
        more = self._kinds[-1] - self._kinds[0]
        for own in (Footprint, Counter):
            del more[own.__qualname__]
        return more.most_common(kinds)
