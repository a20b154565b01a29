"""Is a course flat?"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from endurance.runs import Course

MEMORY_MB = 4.0
"""What resident memory may grow by where nothing leaks: pages that the allocator comes to use."""

OBJECTS = 1_000
"""How many objects, and ten times as many blocks of memory, caches of a fixed size may fill."""


class Growth(NamedTuple):
    """What grew from the second fifth of a run to its last, by the medians of both.

    The first fifth is left out: modules are loaded in it, and caches filled.
    """

    resident_mb: float
    files: float
    threads: float
    objects: float
    blocks: float

    @property
    def is_flat(self) -> bool:
        """Whether nothing grew but by chance."""
        return (
            self.resident_mb <= MEMORY_MB
            and self.files <= 0
            and self.threads <= 0
            and self.objects <= OBJECTS
            and self.blocks <= 10 * OBJECTS
        )


def growth(course: Course) -> Growth:
    """What grew in a course."""
    return Growth(
        *(_median(course, name, 0.8, 1.0) - early(course, name) for name in Growth._fields)
    )


def early(course: Course, name: str) -> float:
    """The median of a figure in the second fifth of a course."""
    return _median(course, name, 0.2, 0.4)


def _median(course: Course, name: str, begin: float, end: float) -> float:
    last = course.footprints[-1].done
    return median(
        getattr(f, name) for f in course.footprints if begin * last <= f.done <= end * last
    )
