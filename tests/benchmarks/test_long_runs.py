"""The long runs: a leak is seen, and what leaks nothing is called flat."""

from __future__ import annotations

import csv
import gc
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endurance.footprint import Footprint, Watch
from endurance.judgement import growth
from endurance.report import markdown, plot, write_csv
from endurance.runs import Course, single_environment, token_ppo, vector_environment

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")


def _memory() -> mmap.mmap:
    """A megabyte from the system: what the allocator has left over is not enough to grow by."""
    pages = mmap.mmap(-1, 1 << 20)
    pages.write(b"x" * (1 << 20))
    return pages


LEAKS: dict[str, Any] = {
    "files": lambda: os.open(os.devnull, os.O_RDONLY),
    "objects": lambda: [[] for _ in range(200)],
    "blocks": lambda: [object() for _ in range(2000)],
    "resident_mb": _memory,
}


@pytest.fixture(autouse=True)
def out_of_sight() -> Iterator[None]:
    """What other tests left in memory need not be counted each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def course(*, every: int = 1, leak: Any = None) -> Course:
    """Fifty steps, of which some may keep something."""
    watch, kept = Watch(50, 25), []
    for step in range(1, 51):
        if leak is not None and step % every == 0:
            kept.append(leak())
        watch.count(step)
    for file in kept:
        if isinstance(file, int):
            os.close(file)
    return Course("a run", "steps", watch.footprints, watch.grown(), {})


def test_what_keeps_nothing_is_flat() -> None:
    grown = growth(course())
    assert grown.is_flat, grown
    assert grown.files == grown.threads == 0


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_seen(name: str) -> None:
    grown = growth(course(leak=LEAKS[name]))
    assert not grown.is_flat
    assert getattr(grown, name) > 20


def test_a_thread_left_behind_is_seen() -> None:
    end = threading.Event()
    assert growth(course(every=10, leak=lambda: threading.Thread(target=end.wait).start())).threads
    end.set()


def test_what_has_grown_is_named() -> None:
    class Kept:
        pass

    grown = course(leak=lambda: [Kept() for _ in range(100)]).grown
    assert grown[0][0].endswith("Kept")
    assert grown[0][1] == pytest.approx(2500, abs=200)


def test_what_only_fills_up_at_first_is_flat() -> None:
    steps = range(0, 1001, 20)
    footprints = [
        Footprint(step, 0.1, 400 + min(step, 100), 5 + (step > 0), 1, 9_000 + min(step, 100), 1)
        for step in steps
    ]
    assert growth(Course("a run", "steps", footprints, [], {})).is_flat


def test_runs_of_the_environment_and_their_report(tmp_path: Path) -> None:
    courses = [single_environment(200, 10), vector_environment(40, 10)]
    assert all(growth(each).is_flat for each in courses)
    assert [each.footprints[-1].done for each in courses] == [200, 40]
    page = markdown(courses, {"cpu": "some"}, "long_runs.png")
    assert page.count("| flat |") == 2
    write_csv(courses, tmp_path / "long_runs.csv")
    with (tmp_path / "long_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22
    assert rows[10] == {"run": "single environment", **rows[10], "done": "200"}
    plot(courses, tmp_path / "long_runs.png")
    assert (tmp_path / "long_runs.png").stat().st_size > 10_000


def test_a_training_run_of_a_few_updates() -> None:
    run = token_ppo(12, 6)
    assert [footprint.done for footprint in run.footprints] == list(range(0, 13, 2))
    assert {"progress.csv", "checkpoints", "model", "samples.jsonl"} <= run.written.keys()
