"""How many tokens two ways of paying need to reach the same score, and how sure that is.

Means and intervals are those of Agarwal et al. 2021 (https://arxiv.org/abs/2108.13264):
interquartile means, and bootstrap intervals that draw seeds anew within each reward. They are
computed here and not by that paper's library: rliable 1.2 fails to import with pandas 3, through
its dependency arch, and pinning pandas for the sake of a trimmed mean is not worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

Array = NDArray[np.float64]

FINAL = 3
"""Rollouts over which the final level is taken."""

SHARE = 0.9
"""Of a gain, what has to be reached."""

RESAMPLES = 1_000
LEVEL = 0.95


@dataclass(frozen=True)
class Race:
    """How long both timings take to a target.

    Attributes:
        target: The score to reach.
        immediate: Tokens learned from until the target; the whole budget if it was not reached.
        delayed: The same.
    """

    target: float
    immediate: float
    delayed: float

    @property
    def ratio(self) -> float:
        """Tokens that delayed needs for each that immediate needs."""
        return self.delayed / self.immediate


@dataclass(frozen=True)
class Comparison:
    """Immediate against delayed, for one reward.

    Attributes:
        gains: Final level above the start, of immediate and delayed.
        noise: The gain that chance explains.
        smaller: The race to a share of the smaller of both gains; the same as `larger` where not
            both learned.
        larger: The race to a share of the larger of both gains.
        behind: Whether immediate never gets to where delayed ends, and the other way round.
    """

    gains: tuple[float, float]
    noise: float
    smaller: Race
    larger: Race
    behind: tuple[bool, bool]

    @property
    def learned(self) -> tuple[bool, bool]:
        """Whether immediate and delayed gained more than chance explains."""
        return self.gains[0] > self.noise, self.gains[1] > self.noise


@dataclass(frozen=True)
class Resamples:
    """What comes out with seeds drawn anew, each (RESAMPLES,).

    Attributes:
        smaller: Ratios of the race to a share of the smaller gain.
        larger: Ratios of the race to a share of the larger gain.
        immediate_behind: 1 where immediate never gets to where delayed ends, else 0.
        delayed_behind: The other way round.
    """

    smaller: Array
    larger: Array
    immediate_behind: Array
    delayed_behind: Array


def smoothed(curve: Array) -> Array:
    """The mean of each point (T,) and its two neighbours; the ends stay as they are."""
    middle = (curve[:-2] + curve[1:-1] + curve[2:]) / 3
    return np.concatenate([curve[:1], middle, curve[-1:]])


def tokens_to_reach(tokens: Array, curve: Array, target: float) -> float:
    """Where a curve first reaches a target, between points by a straight line.

    Args:
        tokens: Where the points stand, (T,), ascending.
        curve: Scores, (T,).
        target: The score to reach.

    Returns:
        Tokens, infinite if it is never reached. At least one update's: before the first update
        nothing is learned.
    """
    (reached,) = (curve >= target).nonzero()
    if not len(reached):
        return float("inf")
    after = int(reached[0])
    if after <= 1:
        return float(tokens[1])
    before = after - 1
    share = (target - curve[before]) / (curve[after] - curve[before])
    return float(tokens[before] + share * (tokens[after] - tokens[before]))


def noise_of(immediate: Array, delayed: Array) -> float:
    """Two standard errors of a mean over seeds, from the spread over seeds at all rollouts.

    Args:
        immediate: Scores of each seed and rollout, (S, T).
        delayed: The same.
    """
    learned = immediate[:, 1:], delayed[:, 1:]  # both start from the same model
    variances = [scores.var(0, ddof=1).mean() / len(scores) for scores in learned]
    return float(2 * np.sqrt(np.mean(variances)))


def compare(
    tokens: Array, immediate: Array, delayed: Array, *, share: float = SHARE, noise: float = 0.0
) -> Comparison:
    """Compare two mean curves by a definition that would be the same if they changed places.

    Targets lie above the common start (the base model, the mean of both first points) by a share
    of a gain, but at least by the noise. A side that learned and does not reach the target, and
    one that did not learn, is counted with the whole budget, so that the ratio is a bound. Where
    only one side learned, a share of the smaller gain would be noise, which the other passes in
    its first update: the target then is the share of the learner's gain in both races.

    Args:
        tokens: Tokens learned from, (T,).
        immediate: Mean scores over the seeds, (T,).
        delayed: The same.
        share: How much of the gain.
        noise: The gain that chance explains; see `noise_of`.
    """
    start = (immediate[0] + delayed[0]) / 2
    budget = float(tokens[-1])
    ends = [float(curve[-FINAL:].mean()) for curve in (immediate, delayed)]
    curves = [smoothed(curve) for curve in (immediate, delayed)]
    gains = [end - float(start) for end in ends]
    learned = [gain > noise for gain in gains]

    def race(gain: float) -> Race:
        target = float(start) + max(share * gain, noise)
        needed = [
            min(tokens_to_reach(tokens, curve, target), budget) if learns else budget
            for curve, learns in zip(curves, learned, strict=True)
        ]
        return Race(target, needed[0], needed[1])

    larger = race(max(gains))
    return Comparison(
        gains=(gains[0], gains[1]),
        noise=noise,
        smaller=race(min(gains)) if all(learned) else larger,
        larger=larger,
        behind=(bool(curves[0].max() < ends[1]), bool(curves[1].max() < ends[0])),
    )


def resample(
    tokens: Array, immediate: Array, delayed: Array, generator: np.random.Generator
) -> Resamples:
    """Compare with seeds drawn anew; the noise is that of all seeds."""
    noise = noise_of(immediate, delayed)
    rows = []
    for _ in range(RESAMPLES):
        means = [
            scores[generator.integers(len(scores), size=len(scores))].mean(0)
            for scores in (immediate, delayed)
        ]
        drawn = compare(tokens, means[0], means[1], noise=noise)
        rows.append((drawn.smaller.ratio, drawn.larger.ratio, *drawn.behind))
    return Resamples(*np.array(rows, np.float64).T)


def all_before(first: Array, second: Array) -> bool:
    """Whether every seed of the first reaches the target before any seed of the second.

    Args:
        first: Tokens until the target, (S,); infinite where it is never reached.
        second: The same.
    """
    return bool(first.max() < second.min())


def chance_of_order(seeds: int) -> float:
    """How likely all seeds of one side come before all of the other, if the sides do not differ.

    Either side may be the first. All orders of the seeds are equally likely then.
    """
    return 2 / comb(2 * seeds, seeds)


def interval_over_rewards(
    resampled: Sequence[Array],
    statistic: Callable[..., Array],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """The interval of a median or mean over rewards, with seeds and rewards drawn anew.

    Args:
        resampled: Resampled numbers of each reward, R arrays (RESAMPLES,).
        statistic: `np.median` or `np.mean`.
        generator: Draws the rewards.
    """
    of_rewards = np.stack(resampled)  # (R, RESAMPLES)
    drawn = generator.integers(len(of_rewards), size=of_rewards.shape)
    return interval(statistic(np.take_along_axis(of_rewards, drawn, 0), axis=0))


def iqm(scores: Array) -> float:
    """The interquartile mean: of the middle half of all scores."""
    return float(stats.trim_mean(scores, 0.25, axis=None))


def iqm_interval(scores: Array, generator: np.random.Generator) -> tuple[float, float]:
    """The interval of an interquartile mean, with seeds drawn anew within each reward.

    Args:
        scores: A score of each seed and reward, (S, R).
        generator: Draws the seeds.
    """
    drawn = generator.integers(len(scores), size=(RESAMPLES, *scores.shape))
    resampled = np.take_along_axis(scores[None], drawn, axis=1).reshape(RESAMPLES, -1)
    return interval(stats.trim_mean(resampled, 0.25, axis=1))


def interval(resampled: Array) -> tuple[float, float]:
    """The middle 95% of resampled statistics."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
