"""The scale of each reward, so that all can be given the same weight against the KL penalty.

Rewards come in units of their own, and the penalty for leaving the base model in nats. Each is
weighted so that the scores of the base model's texts spread as those of `sentiment` do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from comparison import rewards, run

UNIT = "sentiment"
"""The reward that keeps its weight of 1."""

SEED = 1_000_000
"""Of the texts that are measured; no run has it."""

TEXTS = 512

HEAVIEST = 10.0
"""A weight beyond this would come from the few texts that got a score at all."""


def measure(names: Iterable[str]) -> list[dict[str, object]]:
    """Mean, spread and weight of rewards on texts of the base model, a row each.

    The prompts are those of training. A reward that gave all texts the same score has no scale to
    go by, and keeps the weight 1; none gets more than `HEAVIEST`.
    """
    wanted = list(names)
    scores: dict[str, np.ndarray] = {}
    for task in dict.fromkeys(rewards.REWARDS[name].task for name in [UNIT, *wanted]):
        judges = {name for name in [UNIT, *wanted] if rewards.REWARDS[name].task == task}
        policy = run.base_policy(task)
        texts = run.write(policy, task, sorted(judges), SEED, split="train", count=TEXTS)
        scores |= {name: np.array([t.scores[name] for t in texts]) for name in judges}
    unit = scores[UNIT].std()
    return [
        {
            "reward": name,
            "task": rewards.REWARDS[name].task,
            "mean": float(scores[name].mean()),
            "std": float(scores[name].std()),
            "weight": _weight(scores[name], unit),
        }
        for name in wanted
    ]


def _weight(scores: np.ndarray, unit: float) -> float:
    if np.ptp(scores) < 1e-6:
        return 1.0
    return float(min(unit / scores.std(), HEAVIEST))
