"""Learning curves of an arm, and how long it takes to a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from comparison.rows import Row
from comparison.statistics import (
    FINAL,
    RESAMPLES,
    SHARE,
    Array,
    interval,
    smoothed,
    tokens_to_reach,
)

Cost: TypeAlias = Literal["tokens", "seconds", "wall"]
"""What is counted: tokens written, processor seconds, or seconds on the wall."""


@dataclass(frozen=True)
class Curves:
    """The runs of an arm, on the same grid of tokens.

    Runs are judged between two updates, which differ in length; in between the curves are straight.

    Attributes:
        arm: As tables call it.
        tokens: (T,).
        seconds: Processor time until then, (S, T).
        wall: Time on the wall until then, (S, T).
        scores: On held-out prompts, (S, T).
        kls: Nats a text, (S, T).
        last: The last points, one a run.
    """

    arm: str
    tokens: Array
    seconds: Array
    wall: Array
    scores: Array
    kls: Array
    last: Sequence[Row]

    @property
    def seeds(self) -> int:
        """How many runs."""
        return len(self.scores)

    def cost(self, of: Cost) -> Array:
        """What it took to each point of the grid, (S, T)."""
        costs: Array = (
            np.broadcast_to(self.tokens, self.scores.shape) if of == "tokens" else getattr(self, of)
        )
        return costs

    def final(self) -> tuple[float, float]:
        """The mean score at the end, and half of its 95% interval.

        A run's mean is taken to spread as the runs do, but no less than its texts make it: few
        seeds may lie close together by luck.
        """
        means = np.array([row["score"] for row in self.last])
        of_texts = float(np.mean([row["std"] ** 2 / row["texts"] for row in self.last]))
        of_runs = float(means.var(ddof=1)) if len(means) > 1 else 0.0
        half = 1.96 * np.sqrt(max(of_runs, of_texts) / len(means))
        return float(means.mean()), float(half)

    def mean(self, column: str) -> float:
        """The mean of a column at the end of the runs."""
        return float(np.mean([row[column] for row in self.last]))


def curves(arm: str, runs: Sequence[Sequence[Row]]) -> Curves:
    """Put the runs of an arm on a grid.

    Args:
        arm: Its name.
        runs: The points of each, all with the same budget.
    """
    budget, points = runs[0][0]["budget"], runs[0][0]["points"]
    grid = np.linspace(0, budget, points + 1)

    def on_grid(column: str) -> Array:
        return np.array(
            [np.interp(grid, _column(run, "tokens"), _column(run, column)) for run in runs]
        )

    return Curves(
        arm=arm,
        tokens=grid,
        seconds=on_grid("seconds"),
        wall=on_grid("wall"),
        scores=on_grid("score"),
        kls=on_grid("kl"),
        last=[run[-1] for run in runs],
    )


def _column(run: Sequence[Row], name: str) -> Array:
    return np.array([point[name] for point in run], np.float64)


def to_reach(found: Curves, target: float, of: Cost) -> float:
    """What the mean curve of an arm takes to a score; infinite if it never gets there."""
    return _reach(found, np.arange(found.seeds), target, of)


def kl_at(found: Curves, target: float) -> float:
    """How far the mean curve is from the base model where it gets to a score; NaN if never."""
    tokens = to_reach(found, target, "tokens")
    return float(np.interp(tokens, found.tokens, found.kls.mean(0))) if tokens < np.inf else np.nan


def _reach(found: Curves, seeds: np.ndarray, target: float, of: Cost) -> float:
    curve = smoothed(found.scores[seeds].mean(0))
    tokens = tokens_to_reach(found.tokens, curve, target)
    if not np.isfinite(tokens):
        return float("inf")
    return float(np.interp(tokens, found.tokens, found.cost(of)[seeds].mean(0)))


@dataclass(frozen=True)
class Race:
    """How much more one arm takes than another to the same score.

    Attributes:
        target: The score.
        first: What the first takes.
        second: What the second takes. Where one never gets there, it is all that it had.
        low: Lower end of the 95% interval of the ratio.
        high: Upper end of it.
        late: Which of the two never get there.
    """

    target: float
    first: float
    second: float
    low: float
    high: float
    late: tuple[bool, bool]

    @property
    def ratio(self) -> float:
        """How many times as much the second takes."""
        return self.second / self.first

    def __str__(self) -> str:
        if all(self.late):
            return "neither gets there"
        sign = "≥ " if self.late[1] else "≤ " if self.late[0] else ""
        interval = f" [{self.low:.2f} to {self.high:.2f}]" if self.low < self.high else ""
        return f"{sign}{self.ratio:.2f}{interval}"


def race(first: Curves, second: Curves, of: Cost, generator: np.random.Generator) -> Race | None:
    """Race to 90% of the smaller of both final gains, seeds being drawn anew for the interval.

    Gains are means of the last three points above the base model. None if the first has not
    gained more than chance explains; if the second has not, the target is that of the first, and
    the second takes all that it had.
    """
    every = [np.arange(found.seeds) for found in (first, second)]
    noise = [_noise(found) for found in (first, second)]

    def run(drawn: Sequence[np.ndarray]) -> tuple[float, tuple[float, ...], tuple[bool, ...]]:
        pairs = list(zip((first, second), drawn, strict=True))
        means = [found.scores[seeds].mean(0) for found, seeds in pairs]
        start = float(np.mean([mean[0] for mean in means]))
        gains = [float(mean[-FINAL:].mean()) - start for mean in means]
        learned = [gain > error for gain, error in zip(gains, noise, strict=True)]
        target = start + SHARE * (min(gains) if all(learned) else gains[0])
        takes = [_reach(found, seeds, target, of) for found, seeds in pairs]
        late = not np.isfinite(takes[0]), not (learned[1] and np.isfinite(takes[1]))
        had = [float(found.cost(of)[seeds, -1].mean()) for found, seeds in pairs]
        spent = tuple(h if is_late else t for t, h, is_late in zip(takes, had, late, strict=True))
        return target, spent, late

    if float(first.scores[:, -FINAL:].mean()) - float(first.scores[:, 0].mean()) <= noise[0]:
        return None
    target, (of_first, of_second), (first_late, second_late) = run(every)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = [generator.integers(len(seeds), size=len(seeds)) for seeds in every]
        _, (a, b), _ = run(drawn)
        ratios.append(b / a)
    low, high = interval(np.array(ratios))
    return Race(target, of_first, of_second, low, high, (first_late, second_late))


def _noise(found: Curves) -> float:
    """Two standard errors of a mean over the seeds, from their spread at all points."""
    if found.seeds < 2:
        return 0.0
    return float(2 * np.sqrt(found.scores[:, 1:].var(0, ddof=1).mean() / found.seeds))
