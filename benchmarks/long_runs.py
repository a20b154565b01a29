"""Does a long run leave memory flat, and files closed?

    python benchmarks/long_runs.py

takes a million steps of the environment with the table reward, alone, batched and with resets on
the way, ten thousand updates of a tiny model by `textgym train`'s own function, with its logs,
samples, validation and checkpoints, and short trainings one after another. It writes
`benchmarks/results/long_runs.md`, `.csv` and `.png`, and exits 1 if something grows. Each run is a
process of its own. Linux only.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from endurance.judgement import growth
from endurance.report import markdown, plot, write_csv
from endurance.runs import RUNS, Course
from speed.results import machine

RESULTS = Path(__file__).parent / "results"
TOTALS = {
    "ppo": 10_000,
    "single": 1_000_000,
    "vector": 100_000,
    "resets": 62_500,
    "sb3-ppo": 500,
    "repeated": 100,
}
"""Steps, updates or runs, the longest first. A batch step is 16 steps of the environment."""


def in_a_new_process(name: str, total: int, samples: int) -> Course:
    """A run where nothing else has been in memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(RUNS[name], total, samples).result()


def main() -> None:
    """Run, judge, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", nargs="+", default=list(TOTALS), choices=list(RUNS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps and updates")
    parser.add_argument("--samples", type=int, default=50, help="looks at each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the results")
    arguments = parser.parse_args()

    def course(name: str) -> Course:
        total = max(round(TOTALS[name] * arguments.scale), arguments.samples)
        course = in_a_new_process(name, total, arguments.samples)
        print(f"{course.name}: {growth(course)}", flush=True)
        return course

    with ThreadPoolExecutor(arguments.jobs) as pool:
        courses = list(pool.map(course, arguments.runs))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_csv(courses, arguments.output / "long_runs.csv")
    plot(courses, arguments.output / "long_runs.png")
    page = markdown(courses, machine("cpu", "float32"), "long_runs.png")
    (arguments.output / "long_runs.md").write_text(page, encoding="utf-8")
    print(page)
    if not all(growth(course).is_flat for course in courses):
        sys.exit(1)


if __name__ == "__main__":
    main()
