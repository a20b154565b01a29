"""From stored runs to the figures of the report and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from comparison import base, rewards, tasks
from comparison.run import TIMINGS
from comparison.statistics import (
    Array,
    Comparison,
    Resamples,
    all_before,
    compare,
    interval,
    noise_of,
    resample,
    smoothed,
    tokens_to_reach,
)
from comparison.store import Store

VERDICTS = (
    "immediate faster",
    "delayed faster",
    "only immediate learned",
    "only delayed learned",
    "no clear difference",
    "neither learned",
)

CONTROL = ("eos",)
"""Paid with the last token under both timings, so that only lambda differs between them. These are
shown, and left out of all means and medians."""


@dataclass(frozen=True)
class Result:
    """What came out for one reward.

    Attributes:
        name: The reward.
        tokens: Tokens learned from at each point of the curves, (T,).
        scores: Scores by timing, each (S, T); the first is that of the base model, from the
            texts that gave the reward its scale.
        kls: Nats a text by timing, each (S, T).
        seconds: Seconds of training by timing until the texts were written of which the tokens
            are, each (S, T). The update that learned from the last of them is not in it.
        comparison: Immediate against delayed, over all seeds.
        resampled: The same with seeds drawn anew.
    """

    name: str
    tokens: Array
    scores: dict[str, Array]
    kls: dict[str, Array]
    seconds: dict[str, Array]
    comparison: Comparison
    resampled: Resamples

    @property
    def interval(self) -> tuple[float, float]:
        """Of the ratio in the race to a share of the smaller gain."""
        return interval(self.resampled.smaller)

    @property
    def seeds(self) -> int:
        """How many of each timing."""
        return len(self.scores["immediate"])

    @property
    def verdict(self) -> str:
        """Who learned, and whether it can be told who was faster; one of `VERDICTS`.

        With few seeds an interval is too narrow to tell that alone: all seeds of the one must have
        been faster than any of the other too.
        """
        immediate, delayed = self.comparison.learned
        if not immediate and not delayed:
            return "neither learned"
        if not delayed:
            return "only immediate learned"
        if not immediate:
            return "only delayed learned"
        low, high = self.interval
        needed = {timing: self._needed(timing) for timing in TIMINGS}
        if low > 1 and all_before(needed["immediate"], needed["delayed"]):
            return "immediate faster"
        if high < 1 and all_before(needed["delayed"], needed["immediate"]):
            return "delayed faster"
        return "no clear difference"

    def _needed(self, timing: str) -> Array:
        target = self.comparison.smaller.target
        curves = self.scores[timing]
        return np.array([tokens_to_reach(self.tokens, smoothed(c), target) for c in curves])


def results(store: Store, generator: np.random.Generator) -> list[Result]:
    """The rewards of which there are at least two seeds with each timing, as the table has them.

    A seed counts if both timings have it.
    """
    found = []
    for name in rewards.REWARDS:
        seeds = set.intersection(
            *(
                {row["seed"] for row in store.select(store.runs, reward=name, timing=timing)}
                for timing in TIMINGS
            )
        )
        if len(seeds) >= 2:
            found.append(_result(store, name, sorted(seeds), generator))
    return found


def _result(
    store: Store, name: str, seeds: Sequence[int], generator: np.random.Generator
) -> Result:
    def curves(column: str) -> dict[str, Array]:
        return {
            timing: np.concatenate(
                [store.curve(column, reward=name, timing=timing, seed=seed) for seed in seeds]
            )
            for timing in TIMINGS
        }

    scores, tokens = curves("score"), curves("tokens")["immediate"][0]
    for of_timing in scores.values():  # what ended in the first rollout is no fair draw
        of_timing[:, 0] = store.scales[name]["mean"]
    pair = scores["immediate"], scores["delayed"]
    return Result(
        name,
        tokens,
        scores,
        curves("kl"),
        {timing: until_written(seconds) for timing, seconds in curves("seconds").items()},
        compare(tokens, pair[0].mean(0), pair[1].mean(0), noise=noise_of(*pair)),
        resample(tokens, *pair, generator),
    )


def until_written(seconds: Array) -> Array:
    """Seconds until the tokens were written that a policy has learned from at each point.

    Args:
        seconds: Until the end of each rollout, (S, T). Tokens are counted where a rollout begins,
            which is where the one before has ended.
    """
    return np.concatenate([np.zeros_like(seconds[:, :1]), seconds[:, :-1]], axis=1)


def learned_by(found: Sequence[Result], who: Literal["any", "both"]) -> list[Result]:
    """The results in which at least one of the timings learned, or both; no controls."""
    enough = {"any": any, "both": all}[who]
    return [r for r in found if enough(r.comparison.learned) and r.name not in CONTROL]


def paired(found: Sequence[Result], others: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Results of the same reward, in both of which at least one timing learned; no controls."""
    first = {result.name: result for result in learned_by(found, "any")}
    return [(first[r.name], r) for r in learned_by(others, "any") if r.name in first]


def ratios(found: Sequence[Result], share: float) -> list[float]:
    """The ratio of each result, if another share of the smaller gain is to be reached."""
    return [
        compare(
            result.tokens,
            result.scores["immediate"].mean(0),
            result.scores["delayed"].mean(0),
            share=share,
            noise=result.comparison.noise,
        ).smaller.ratio
        for result in found
    ]


def gain(store: Store, name: str, timing: str, judge: str) -> Array:
    """What held-out texts gained by training with a reward, as another judges them, (seeds,).

    Above the base model's held-out texts, in the judge's unit.
    """
    after = store.column(f"after: {judge}", reward=name, timing=timing)
    return (after - base.score(store, judge).mean) / unit(store, judge)


def gain_error(store: Store, name: str, timing: str, judge: str) -> float:
    """The standard error of the mean over seeds of a gain, in the judge's unit.

    A seed's mean is taken to spread as the seeds do, but no less than that of as many base texts:
    few seeds may lie close together by luck. What the base model's mean may be off is in it.
    """
    before = base.score(store, judge)
    gains = gain(store, name, timing, judge)
    of_texts = (before.std / unit(store, judge)) ** 2 / tasks.HELD_OUT_TEXTS
    of_seed = max(float(gains.var(ddof=1)), of_texts) if len(gains) > 1 else of_texts
    return float(np.sqrt(of_seed / len(gains) + (before.error / unit(store, judge)) ** 2))


def unit(store: Store, name: str) -> float:
    """What gains in a reward are counted in."""
    return base.unit(name, base.score(store, name).std)


def threshold(store: Store, name: str) -> float:
    """The score that counts as learned.

    What the table of rewards says; else one standard deviation above the mean of base texts, but
    not more than half of the way from there to the highest score there is.
    """
    stated = rewards.REWARDS[name].threshold
    if stated is not None:
        return stated
    scale, (_, highest) = store.scales[name], base.score_range(name)
    return float(scale["mean"] + min(scale["std"], (highest - scale["mean"]) / 2))


def effort(result: Result, timing: str, target: float) -> tuple[float, float]:
    """Tokens and seconds until a mean curve reaches a score; infinite if it never does."""
    tokens = tokens_to_reach(result.tokens, smoothed(result.scores[timing].mean(0)), target)
    seconds = np.interp(tokens, result.tokens, result.seconds[timing].mean(0))
    return tokens, float(seconds) if np.isfinite(tokens) else tokens


def changed_judges(store: Store) -> list[str]:
    """Judges that give base texts another mean now than they did when the runs were made.

    By more than four standard errors: their code has been changed in between, and gains counted
    from the base model's mean would not be gains.
    """
    found = []
    for judge, entry in rewards.REWARDS.items():
        if (entry.task, f"before: {judge}") not in store.base:
            continue
        # Runs of the same seed have the same texts from before training.
        rows = store.select(store.runs, task=entry.task)
        by_seed = {row["seed"]: row.get(f"before: {judge}") for row in rows}
        means = [mean for mean in by_seed.values() if mean is not None]
        now = base.score(store, judge)
        if means:
            error = now.std / np.sqrt(tasks.HELD_OUT_TEXTS * len(means)) + now.error
            if abs(np.mean(means) - now.mean) > 4 * error:
                found.append(judge)
    return found


def pilot_table(store: Store) -> dict[tuple[str, float], dict[str, float]]:
    """How much each reward gained with each timing and lambda, on the mean over its whole curve.

    In standard deviations over texts of the base model. The mean of the curve says how fast and
    how far at once.
    """
    table: dict[tuple[str, float], dict[str, float]] = {}
    names = [name for name in rewards.REWARDS if store.select(store.runs, reward=name)]
    for timing in TIMINGS:
        for lam in sorted({row["gae_lambda"] for row in store.runs}):
            curves = {
                name: store.curve("score", reward=name, timing=timing, gae_lambda=lam)
                for name in names
            }
            table[timing, lam] = {
                name: float(curve[:, 1:].mean() - store.scales[name]["mean"])
                / base.unit(name, store.scales[name]["std"])
                for name, curve in curves.items()
            }
    return table


def share_of_best(
    table: dict[tuple[str, float], dict[str, float]], timing: str, lam: float
) -> float:
    """The mean over rewards of a gain divided by the reward's best with that timing.

    Here a reward that gains much counts no more than one that gains little; one that gains with no
    lambda counts nothing.
    """
    of_timing = [gains for (other, _), gains in table.items() if other == timing]
    best = {name: max(gains[name] for gains in of_timing) for name in of_timing[0]}
    shares = [g / best[n] if best[n] > 0 else 0.0 for n, g in table[timing, lam].items()]
    return float(np.mean(shares))
