"""How cost grows when rows, new tokens, prompt and vocabulary double, each alone."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

from speed.learners import Iteration, fast
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
        values = [getattr(base, dimension) * 2**doubling for doubling in range(doublings + 1)]
        workloads = [replace(base, **{dimension: value}) for value in values]
        points: list[tuple[float, float, float]] = []
        for workload, seconds in zip(workloads, _seconds(workloads, iterations), strict=True):
            rollout, update = seconds
            written = workload.rows * workload.new
            read = workload.rows * (workload.prompt + workload.new - 1)
            times = ["", ""]
            if points:
                _, before_rollout, before_update = points[-1]
                times = [f"{rollout / before_rollout:.2f}", f"{update / before_update:.2f}"]
            points.append((read, rollout, update))
            each = (rollout / written, update / written, update / read)
            cells = [f"{1e6 * value:.1f}" for value in each]
            value = str(getattr(workload, dimension))
            body.append([WHAT.get(dimension, dimension), value, *cells, *times])
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
        "'times' is against the line above. A token attends to all before it, so that reading it "
        "costs more in longer texts, by arithmetic."
    )
    return section


def _seconds(workloads: list[Workload], iterations: int) -> list[tuple[float, float]]:
    """Of a rollout and of an update, for each workload; measured in turn."""
    learners = [fast(w, n_steps=w.new, batch_size=w.rows * w.new, n_epochs=1) for w in workloads]
    done: list[list[Iteration]] = [[] for _ in learners]
    for learner in learners:
        learner.run(2)
    for _ in range(iterations):
        for learner, iterations_of_it in zip(learners, done, strict=True):
            iterations_of_it += learner.run(1)
    return [(median(i.rollout for i in one), median(i.update for i in one)) for one in done]
