"""The answer in words, and on which rewards it rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from comparison import statistics
from comparison.analysis import CONTROL, VERDICTS, Result, gain, learned_by, paired, ratios
from comparison.markdown import counted, head, named, number, picture, ratio, row
from comparison.run import TIMINGS
from comparison.statistics import Array
from comparison.store import Store


def answer(
    store: Store,
    found: Sequence[Result],
    others: Sequence[Result],
    lambdas: Mapping[str, float],
    generator: np.random.Generator,
) -> list[str]:
    """A few sentences, and what they do not say.

    Args:
        store: Has the runs, and the base model's scores.
        found: What came out of them.
        others: The same, where immediate had the lambda of delayed.
        lambdas: By timing.
        generator: Draws the rewards of intervals.
    """
    one, both = learned_by(found, "any"), learned_by(found, "both")
    said = []

    def spent(timing: str) -> int:
        races = [(getattr(result.comparison.larger, timing), result.tokens[-1]) for result in one]
        return sum(needed >= budget for needed, budget in races)

    if both:
        median = np.median([result.comparison.smaller.ratio for result in both])
        spread = [result.resampled.smaller for result in both]
        said.append(
            f"Of {counted(len(both), 'reward')} that both timings learn, **delayed needs "
            f"{median:.2f} times as many tokens as immediate** to get 90% of the smaller of both "
            f"gains (median; {_interval(spread, np.median, generator)}), which is a low target for "
            "the better of the two."
        )
    if one:
        median = np.median([result.comparison.larger.ratio for result in one])
        spread = [result.resampled.larger for result in one]
        said.append(
            f"To get 90% of the *larger* gain it needs **{median:.2f} times as many** (median of "
            f"the {counted(len(one), 'reward')} that at least one learns; "
            f"{_interval(spread, np.median, generator)}). A timing that does not get there is "
            f"counted with the whole budget: delayed on {spent('delayed')} of these rewards, "
            f"immediate on {spent('immediate')}. The budget hides how much longer these would "
            "take: where it is delayed, the ratio is at least what is counted."
        )
        late = [result.comparison.behind[1] for result in one]
        early = [result.comparison.behind[0] for result in one]
        late_spread = [result.resampled.delayed_behind for result in one]
        early_spread = [result.resampled.immediate_behind for result in one]
        said.append(
            f"On **{np.mean(late):.0%}** of them {_interval(late_spread, np.mean, generator, '%')} "
            "delayed never gets, within the budget, to the score at which immediate ends; on "
            f"**{np.mean(early):.0%}** {_interval(early_spread, np.mean, generator, '%')} "
            "immediate never gets to where delayed ends; with no difference between the timings, "
            "chance would make either a quarter to a third."
        )
    learners = [r for r in found if r.name not in CONTROL]
    gained = []
    for timing in TIMINGS:
        if not learners:
            continue
        gains = [gain(store, result.name, timing, result.name) for result in learners]
        seeds = min(map(len, gains))
        table = np.stack([of_reward[:seeds] for of_reward in gains], axis=1)
        low, high = statistics.iqm_interval(table, generator)
        gained.append(f"{statistics.iqm(table):.2f} with {timing} [{low:.2f} to {high:.2f}]")
    if gained:
        said.append(
            "On prompts that training has not seen, texts gain "
            + " and ".join(gained)
            + " standard deviations of the base model's texts (mean of the middle half of "
            f"{counted(len(learners), 'reward')} and their seeds)."
        )
    return [
        "## The answer",
        "",
        *(f"- {sentence}" for sentence in said),
        "",
        "Brackets are 95% intervals, with seeds and rewards drawn anew (of held-out gains, seeds "
        f"only). This holds for immediate at lambda {lambdas['immediate']:g} against delayed at "
        f"{lambdas['delayed']:g}, for one small model and one algorithm: see the notes at the end."
        + _lambda_alone(found)
        + _timing_alone(found, others),
        "",
    ]


def _lambda_alone(found: Sequence[Result]) -> str:
    controls = [r for r in found if r.name in CONTROL and all(r.comparison.learned)]
    return "".join(
        f" **Part of it is lambda:** `{result.name}` is paid with the last token whichever the "
        f"timing, and has a ratio of {result.comparison.smaller.ratio:.2f} "
        f"[{result.interval[0]:.2f} to {result.interval[1]:.2f}] from lambda alone. It is a "
        "control, and in none of the numbers above."
        for result in controls
    )


def _timing_alone(found: Sequence[Result], others: Sequence[Result]) -> str:
    pairs = paired(found, others)
    if not pairs:
        return ""
    own, same = (np.median([pair[i].comparison.smaller.ratio for pair in pairs]) for i in (0, 1))
    return (
        f" On {counted(len(pairs), 'reward')} immediate was also tried at delayed's lambda: the "
        f"median ratio of these is {own:.2f} with immediate's own lambda and **{same:.2f} with the "
        "same lambda for both**, where only the timing differs."
    )


def _interval(
    spread: Sequence[Array],
    statistic: Callable[..., Array],
    generator: np.random.Generator,
    form: str = "",
) -> str:
    low, high = statistics.interval_over_rewards(spread, statistic, generator)
    return f"[{low:.0%} to {high:.0%}]" if form == "%" else f"[{low:.2f} to {high:.2f}]"


def faster(found: Sequence[Result], stem: str) -> list[str]:
    """Reward by reward: who needs fewer tokens, and how sure that is."""
    both, one = learned_by(found, "both"), learned_by(found, "any")
    names = {
        verdict: [result.name for result in found if result.verdict == verdict]
        for verdict in VERDICTS
    }
    chances = [statistics.chance_of_order(result.seeds) for result in both]
    told = sum(result.verdict in ("immediate faster", "delayed faster") for result in both)
    shares = ", ".join(f"{np.median(ratios(both, s)):.2f} for {s:.0%}" for s in (0.5, 0.75, 1.0))
    lines = [
        "## On which rewards is which timing faster?",
        "",
        f"Tokens until {statistics.SHARE:.0%} of the smaller of both gains, as a ratio: above 1, "
        f"immediate is faster. The gain is the mean of the last {statistics.FINAL} rollouts above "
        "the base model. A timing has learned if that is more than two standard errors. Where only "
        f"one has, the target is {statistics.SHARE:.0%} of its gain, and the other is counted with "
        "the whole budget: such a ratio is a bound, marked with ≥ or ≤.",
        "",
        "One is called faster if the 95% interval leaves out 1 *and* each of its seeds gets to the "
        "target before any seed of the other; the interval alone is too sure with so few seeds.",
    ]
    if both:
        lines[-1] += (
            f" Where the timings do not differ, the order of the seeds alone comes out like this "
            f"with a chance of {np.mean(chances):.0%}: of {counted(len(both), 'reward')}, up to "
            f"{sum(chances):.1f} would be expected by chance. The number found is {told}."
        )
        lines += ["", f"With another share of the smaller gain, the median ratio is {shares}."]
    lines += [
        "",
        *(
            f"- {verdict}: {', '.join(map(named, which))}"
            for verdict, which in names.items()
            if which
        ),
        "",
    ]
    lines += head("reward", "tokens, immediate", "tokens, delayed", "ratio", "95%", "verdict")
    for result in found:
        race = result.comparison.smaller
        cells = ["—"] * 4
        if any(result.comparison.learned):
            low, high = result.interval
            immediate, delayed = result.comparison.learned
            cells = [
                number(race.immediate) if immediate else f"> {number(race.immediate)}",
                number(race.delayed) if delayed else f"> {number(race.delayed)}",
                ratio(result),
                f"{low:.2f} to {high:.2f}",
            ]
        lines.append(row(named(result.name), *cells, result.verdict))
    shown = [""]
    if one:
        shown += picture(stem, "ratios", "Tokens that delayed needs for each of immediate")
    shown += picture(
        stem,
        "curves",
        "Learning curves: the mean over the seeds and their range; dotted, the score to reach",
    )
    return [*lines, *shown]
