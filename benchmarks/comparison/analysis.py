"""From stored runs to the figures of the report and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comparison import rewards
from comparison.run import TIMINGS
from comparison.statistics import (
    Array,
    Comparison,
    compare,
    interval,
    noise_of,
    ratio_resamples,
    smoothed,
    tokens_to_reach,
)
from comparison.store import Store


@dataclass(frozen=True)
class Result:
    """What came out for one reward.

    Attributes:
        name: The reward.
        tokens: Tokens learned from at each point of the curves, (T,).
        scores: Scores by timing, each (S, T); the first is that of the base model, from the
            texts that gave the reward its scale.
        kls: Nats a text by timing, each (S, T).
        seconds: Seconds of training by timing, each (S, T).
        comparison: Immediate against delayed, over all seeds.
        resampled: Ratios with seeds drawn anew.
    """

    name: str
    tokens: Array
    scores: dict[str, Array]
    kls: dict[str, Array]
    seconds: dict[str, Array]
    comparison: Comparison
    resampled: Array

    @property
    def interval(self) -> tuple[float, float]:
        """Of the ratio."""
        return interval(self.resampled)

    @property
    def verdict(self) -> str:
        """Who learned, and whether it can be told who was faster."""
        immediate, delayed = self.comparison.learned
        if not immediate and not delayed:
            return "neither learned"
        if not delayed:
            return "only immediate learned"
        if not immediate:
            return "only delayed learned"
        low, high = self.interval
        return "immediate faster" if low > 1 else "delayed faster" if high < 1 else "no difference"


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
        curves("seconds"),
        compare(tokens, pair[0].mean(0), pair[1].mean(0), noise=noise_of(*pair)),
        ratio_resamples(tokens, *pair, generator),
    )


def compared(found: Sequence[Result]) -> list[Result]:
    """The results with a ratio: at least one of both timings learned."""
    return [result for result in found if any(result.comparison.learned)]


def ratios(found: Sequence[Result], share: float) -> list[float]:
    """The ratio of each result, if another share of the smaller gain is to be reached."""
    return [
        compare(
            result.tokens,
            result.scores["immediate"].mean(0),
            result.scores["delayed"].mean(0),
            share=share,
            noise=result.comparison.noise,
        ).ratio
        for result in found
    ]


def gain(store: Store, name: str, timing: str, judge: str) -> Array:
    """What held-out texts gained by training with a reward, as another judges them, (seeds,).

    In standard deviations of the judge's scores over texts of the base model; in the judge's own
    unit if these were all the same.
    """
    before = store.column(f"before: {judge}", reward=name, timing=timing)
    after = store.column(f"after: {judge}", reward=name, timing=timing)
    return (after - before) / unit(store, judge)


def unit(store: Store, name: str) -> float:
    """The standard deviation over texts of the base model, or 1 if there is none."""
    return float(store.scales[name]["std"]) or 1.0


def threshold(store: Store, name: str) -> float:
    """The score that counts as learned."""
    stated = rewards.REWARDS[name].threshold
    scale = store.scales[name]
    return float(scale["mean"] + scale["std"]) if stated is None else stated


def effort(result: Result, timing: str, target: float) -> tuple[float, float]:
    """Tokens and seconds until a mean curve reaches a score; infinite if it never does."""
    tokens = tokens_to_reach(result.tokens, smoothed(result.scores[timing].mean(0)), target)
    seconds = np.interp(tokens, result.tokens, result.seconds[timing].mean(0))
    return tokens, float(seconds) if np.isfinite(tokens) else tokens


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
                name: float(curve[:, 1:].mean() - store.scales[name]["mean"]) / unit(store, name)
                for name, curve in curves.items()
            }
    return table
