"""How cost grows when rows, new tokens, prompt and vocabulary double, each alone."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

from speed.learners import fast
from speed.results import Figures, Section, Target
from speed.workload import Workload

DIMENSIONS = ("rows", "new", "prompt", "vocabulary")
WHAT = {"new": "new tokens", "prompt": "prompt tokens"}


def measure(base: Workload, doublings: int, iterations: int, at_most: float) -> Section:
    """Double each dimension of a workload some times.

    Args:
        base: Where each dimension begins.
        doublings: How many times.
        iterations: Of which the median counts.
        at_most: Bound for the power of the number of tokens that an update's time grows with;
            1 is linear.
    """
    section = Section()
    body = []
    for dimension in DIMENSIONS:
        points = []
        for doubling in range(doublings + 1):
            value = getattr(base, dimension) * 2**doubling
            workload = replace(base, **{dimension: value})
            rollout, update = _seconds(workload, iterations)
            written = workload.rows * workload.new
            read = workload.rows * (workload.prompt + workload.new - 1)
            times = ["", ""]
            if points:
                _, before_rollout, before_update = points[-1]
                times = [f"{rollout / before_rollout:.2f}", f"{update / before_update:.2f}"]
            points.append((read, rollout, update))
            seconds = [rollout / written, update / written, update / read]
            cells = [f"{1e6 * value:.1f}" for value in seconds]
            body.append([WHAT.get(dimension, dimension), str(value), *cells, *times])
        if dimension in ("rows", "new"):
            power = math.log(points[-1][2] / points[0][2]) / math.log(points[-1][0] / points[0][0])
            case = f"{WHAT.get(dimension, dimension)} x {2**doublings}"
            detail = "power of tokens read that the update's seconds grow with; 1 is linear"
            section.targets.append(
                Target("growth of the update", case, power, at_most, upper=True, detail=detail)
            )
    header = ["doubled", "to", "rollout, µs a new token", "update, µs a new token"]
    header += ["update, µs a token read", "rollout, times", "update, times"]
    section.figures.append(Figures("How cost grows", header, body))
    section.notes.append(
        f"Each dimension alone, from {base}, vocabulary {base.vocabulary}; one epoch, one "
        f"mini-batch; medians of {iterations}. Tokens read are those of prompt and completion; "
        "'times' is against the line above."
    )
    return section


def _seconds(workload: Workload, iterations: int) -> tuple[float, float]:
    """Of a rollout and of an update."""
    learner = fast(
        workload, n_steps=workload.new, batch_size=workload.rows * workload.new, n_epochs=1
    )
    learner.run(2)
    done = learner.run(iterations)
    return median(i.rollout for i in done), median(i.update for i in done)
