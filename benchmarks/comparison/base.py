"""What the base model writes on the held-out prompts: where gains begin, and their unit.

A run's own texts from before its training are as few as those from after. All runs of a task begin
with the same model, so that one measurement on many more texts serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from comparison import rewards, run, tasks
from comparison.rows import Row
from comparison.store import Store
from textgym.rewards.make import build

SEED = 2_000_000
"""Of the texts that are measured; no run has it."""

SETS = 8
"""Texts are this many times those of a run; `distinct_2` depends on how many there are."""

SMALLEST_UNIT = 0.05
"""Of the width of a reward's range."""


@dataclass(frozen=True)
class Level:
    """A number of the base model's texts.

    Attributes:
        mean: Its mean.
        std: Its standard deviation.
        count: Over how many texts, or sets of texts.
    """

    mean: float
    std: float
    count: int

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.std / math.sqrt(self.count)


def complete(store: Store, judges: Iterable[str]) -> None:
    """Measure the tasks of which not all judges are known yet."""
    wanted = [judge for judge in rewards.REWARDS if judge in set(judges)]
    for task in tasks.NAMES:
        of_task = [judge for judge in wanted if rewards.REWARDS[judge].task == task]
        if any((task, _before(judge)) not in store.base for judge in of_task):
            store.add_base(measure(task, of_task))


def measure(task: str, judges: Iterable[str]) -> list[Row]:
    """Scores, diversity and length of many base texts on the held-out prompts, a row each."""
    count = SETS * tasks.HELD_OUT_TEXTS
    texts = run.write(run.base_policy(task), task, judges, SEED, count=count)
    # Rows of a set are neighbours: the prompts come round in order.
    sets = np.array_split(np.arange(count), SETS)
    values = {
        **{_before(name): [text.scores[name] for text in texts] for name in judges},
        "length": [float(len(text.token_ids)) for text in texts],
        "distinct_2": [run.describe([texts[i] for i in rows])["distinct_2"] for rows in sets],
    }
    return [
        {
            "task": task,
            "measure": name,
            "mean": float(np.mean(numbers)),
            "std": float(np.std(numbers, ddof=1)),
            "count": len(numbers),
        }
        for name, numbers in values.items()
    ]


def score(store: Store, judge: str) -> Level:
    """What a judge gives the base model's held-out texts."""
    return level(store, rewards.REWARDS[judge].task, _before(judge))


def level(store: Store, task: str, measure: str) -> Level:
    """A number of the base model's held-out texts."""
    row = store.base[task, measure]
    return Level(row["mean"], row["std"], row["count"])


def unit(name: str, std: float) -> float:
    """What gains in a reward are counted in.

    The standard deviation over base texts, but at least a part of the width of the reward's range,
    where it has one: if hardly any base text gets a score, a small gain is very many deviations.
    """
    lowest, highest = score_range(name)
    width = highest - lowest
    floor = SMALLEST_UNIT * width if math.isfinite(width) else 0.0
    return max(std, floor) or 1.0


@cache
def score_range(name: str) -> tuple[float, float]:
    """The lowest and the highest score of a reward with the parameters that it has here."""
    entry = rewards.REWARDS[name]
    lowest, highest = build(entry.kind or name, **entry.parameters).score_range
    return float(lowest), float(highest)


def _before(judge: str) -> str:
    return f"before: {judge}"  # as in the table of runs
