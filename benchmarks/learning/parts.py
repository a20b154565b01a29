"""The parts of the benchmark: which runs each of them wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from learning import arms
from learning.arms import BUDGET, Arm
from learning.trial import Trial


@dataclass(frozen=True)
class Part:
    """Some arms that are compared with each other.

    Attributes:
        name: On the command line, and in the names of files.
        title: What is asked.
        arms: In the order of the table.
        alone: Whether runs take all cores, one at a time, so that time on the wall can be told.
        budget: Tokens of a run.
        most_seeds: Runs of each arm, at most.
        greedy: Whether models are judged by their likeliest texts.
        only_speed: Whether runs are so short that nothing but their speed can be told.
    """

    name: str
    title: str
    arms: Sequence[Arm]
    alone: bool = False
    budget: int = BUDGET
    most_seeds: int = 1_000
    greedy: bool = False
    only_speed: bool = False

    def trials(self, seeds: int, budget: int | None = None) -> list[Trial]:
        """All runs, whole seeds first, so that a part of them is of use."""
        given = {"budget": budget or self.budget, "greedy": self.greedy}
        return [
            arm.trial(self.name, seed, arm.rate, **given)
            for seed in range(min(seeds, self.most_seeds))
            for arm in self.arms
        ]


def at_rate(rate: float | None) -> list[Arm]:
    """Those that are compared with TRL, at one rate; each at its own if that is None."""
    chosen = [arm if rate is None else replace(arm, rate=rate) for arm in arms.AGAINST_TRL]
    return [replace(arm, name=f"{arm.name}, {arm.learning_rate:g}") for arm in chosen]


def _against_trl() -> list[Arm]:
    every = [arm for rate in (*arms.SAME_RATES, None) for arm in at_rate(rate)]
    return list({arm.name: arm for arm in every}.values())  # own rates may be one of the others


PARTS = {
    part.name: part
    for part in (
        Part(
            "algorithms",
            "Every algorithm, with reward at every token and at the end",
            arms.ALGORITHMS,
        ),
        Part(
            "stock",
            "Stable-Baselines3's own algorithms",
            arms.STOCK,
            budget=arms.STOCK_BUDGET,
            most_seeds=1,
            only_speed=True,
        ),
        Part("vocabulary", "Q-learning on a reduced vocabulary", arms.VOCABULARY, greedy=True),
        Part("backbones", "Recurrent networks from scratch", arms.BACKBONES),
        Part("temperatures", "Exploring first", arms.TEMPERATURES),
        Part("trl", "Against TRL's GRPO", _against_trl(), alone=True, budget=arms.TRL_BUDGET),
    )
}


def pilot(budget: int | None = None) -> list[Trial]:
    """Every arm with each of its rates, judged on validation prompts, the middle rates first."""
    given = {"budget": budget or arms.PILOT_BUDGET, "split": "validation", "points": 2}
    tried = [
        *((arm, False) for arm in (*arms.ALGORITHMS, arms.TRL)),
        *((replace(arm, name=f"{arm.name}, reduced vocabulary"), True) for arm in arms.VOCABULARY),
    ]
    return [
        arm.trial("pilot", arms.PILOT_SEED, arm.rates[which], **given, greedy=greedy)
        for which in (1, 0, 2)
        for arm, greedy in tried
    ]
