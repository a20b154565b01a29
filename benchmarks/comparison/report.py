"""The tables, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comparison import rewards, statistics
from comparison.analysis import (
    Result,
    compared,
    effort,
    gain,
    pilot_table,
    ratios,
    threshold,
)
from comparison.run import TIMINGS
from comparison.scales import HEAVIEST
from comparison.store import Store


def pilot(store: Store) -> list[str]:
    """Which lambda suits which timing."""
    if not store.runs:
        return []
    table = pilot_table(store)
    names = list(next(iter(table.values())))
    seeds = sorted({str(row["seed"]) for row in store.runs})
    tokens = sorted({f"{row['total_timesteps']:,}" for row in store.runs})
    lines = [
        "## The pilot: lambda",
        "",
        "Mean of the learning curve above its start, in standard deviations of base texts. Seeds: "
        f"{', '.join(seeds)}, which the comparison does not use; {', '.join(tokens)} tokens a run.",
        "",
        *_head("timing", "lambda", *names, "mean"),
    ]
    for (timing, lam), gains in table.items():
        mean = np.mean(list(gains.values()))
        best = max(np.mean(list(g.values())) for (t, _), g in table.items() if t == timing)
        cells = [f"{gains[name]:.2f}" for name in names]
        shown = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
        lines.append(_row(timing, f"{lam:g}", *cells, shown))
    return [*lines, ""]


def report(
    store: Store,
    found: Sequence[Result],
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    pilot_store: Store,
    generator: np.random.Generator,
) -> str:
    """All of it."""
    lines = ["# Which reward teaches what, and how much does immediate beat delayed?", ""]
    lines += [f"{key}: {value}  " for key, value in machine.items()]
    lines += ["", "Settings: " + ", ".join(f"{k} {v}" for k, v in settings.items()) + ".", ""]
    if found:
        lines += _answer(store, found, generator)
        lines += _by_reward(store, found)
        lines += _efforts(store, found)
        lines += _notes(store, found)
    lines += pilot(pilot_store)
    return "\n".join(lines)


def pictures(stem: str) -> str:
    """The pictures, at the end of the report."""
    names = {
        "curves": "Learning curves: mean over the seeds, and their range; dotted, the score by "
        "which tokens are compared",
        "ratios": "Tokens that delayed needs for each that immediate needs",
        "judged_immediate": "What an immediate reward (row) does to all scores (columns)",
        "judged_delayed": "What a delayed reward (row) does to all scores (columns)",
        "kl": "What a gain costs in distance from the base model",
    }
    return "\n".join(f"![{text}]({stem}_{name}.png)\n" for name, text in names.items())


def _answer(store: Store, found: Sequence[Result], generator: np.random.Generator) -> list[str]:
    shown = compared(found)
    lines = ["## Immediate against delayed", ""]
    if shown:
        median = np.median([result.comparison.ratio for result in shown])
        low, high = statistics.median_interval([result.resampled for result in shown], generator)
        lines += [
            f"**To reach the same score, delayed reward needs {median:.2f} times as many tokens** "
            f"(95% interval {low:.2f} to {high:.2f}; median of {len(shown)} rewards).",
            "",
            f"The score to reach is {statistics.SHARE:.0%} of the smaller of both gains; the final "
            f"level is the mean of the last {statistics.FINAL} rollouts. With other shares the "
            "median ratio is "
            + ", ".join(f"{np.median(ratios(shown, s)):.2f} ({s:.0%})" for s in (0.5, 0.75, 1.0))
            + ".",
            "",
        ]
    for timing in TIMINGS:
        gains = [gain(store, result.name, timing, result.name) for result in found]
        seeds = min(map(len, gains))
        table = np.stack([of_reward[:seeds] for of_reward in gains], axis=1)
        low, high = statistics.iqm_interval(table, generator)
        lines.append(
            f"- {timing}: interquartile mean of the gain on held-out prompts "
            f"{statistics.iqm(table):.2f} standard deviations of base texts [{low:.2f}, {high:.2f}]"
        )
    lines.append("")
    for verdict in sorted({result.verdict for result in found}):
        names = [result.name for result in found if result.verdict == verdict]
        lines.append(f"- {verdict}: {', '.join(names)}")
    return [*lines, ""]


def _by_reward(store: Store, found: Sequence[Result]) -> list[str]:
    lines = [
        "## Each reward",
        "",
        "Mean score of the held-out texts before and after (mean over seeds ± standard "
        "deviation); i is immediate, d delayed. A weight makes the scores of base texts spread as "
        "those of sentiment do; a reward that scores them all the same keeps the weight 1.",
        "",
        *_head(
            *("reward", "task", "weight", "before", "after, i", "after, d"),
            *("tokens d / i", "95%", "verdict", "KL, i", "KL, d"),
            *("distinct-2, i", "distinct-2, d", "length, i", "length, d", "s a run, i", "s, d"),
        ),
    ]
    for result in found:
        name, entry = result.name, rewards.REWARDS[result.name]

        def both(column: str, digits: int, name: str = name) -> list[str]:
            return [
                f"{store.column(column, reward=name, timing=timing).mean():.{digits}f}"
                for timing in TIMINGS
            ]

        after = [
            _spread(store.column(f"after: {name}", reward=name, timing=timing))
            for timing in TIMINGS
        ]
        ratio, bounds = "—", "—"
        if any(result.comparison.learned):
            low, high = result.interval
            ratio, bounds = f"{result.comparison.ratio:.2f}", f"{low:.2f} to {high:.2f}"
        lines.append(
            _row(
                *(name, entry.task, f"{store.scales[name]['weight']:.2f}"),
                f"{store.column(f'before: {name}', reward=name).mean():.3f}",
                *(*after, ratio, bounds, result.verdict),
                *both("kl", 1),
                *both("distinct_2", 2),
                *both("length", 1),
                *both("seconds", 0),
            )
        )
    return [*lines, ""]


def _efforts(store: Store, found: Sequence[Result]) -> list[str]:
    lines = [
        "## What it takes to learn a reward",
        "",
        "Until the mean curve reaches the threshold: one standard deviation above the mean of "
        "base texts where nothing else is said in the table of rewards. Seconds are processor time "
        "of one thread.",
        "",
        *_head(
            *("reward", "threshold", "tokens, i", "tokens, d", "updates, i", "updates, d"),
            *("seconds, i", "seconds, d"),
        ),
    ]
    for result in found:
        target = threshold(store, result.name)
        efforts = [effort(result, timing, target) for timing in TIMINGS]
        rollout = result.tokens[1] - result.tokens[0]
        lines.append(
            _row(
                result.name,
                f"{target:.3f}",
                *(_number(tokens) for tokens, _ in efforts),
                *(_number(np.ceil(tokens / rollout)) for tokens, _ in efforts),
                *(_number(seconds) for _, seconds in efforts),
            )
        )
    return [*lines, ""]


def _notes(store: Store, found: Sequence[Result]) -> list[str]:
    names = [result.name for result in found]
    by_weight = {
        "scored all base texts alike and have the weight 1": [
            name for name in names if store.scales[name]["std"] < 1e-6
        ],
        f"have the largest weight allowed, {HEAVIEST:g}, and so spread less than sentiment": [
            name for name in names if store.scales[name]["weight"] >= HEAVIEST
        ],
    }
    lines = ["## Notes", ""]
    lines += [f"- {', '.join(which)}: {what}." for what, which in by_weight.items() if which]
    return [
        *lines,
        "- Curves begin with the mean of base texts on training prompts. What ended in the first "
        "rollout of a run is no fair draw of these: long texts were still being written.",
        "- Gained is what lies above that, with the noise at two standard errors of a mean over "
        "seeds. If only one timing gained more, the other is counted with the whole budget, and "
        "the ratio is a bound.",
        "- Intervals draw seeds anew, and for the median rewards too. Few seeds make the interval "
        "of a single reward too narrow; that of the median is the one to go by.",
        "- In sums and choices the model first learned from random answers how an answer looks, "
        "and not which one is right; as it is, it would never give any.",
        "- Most of the dialogue was in the built-in model's pre-training; held out are prompts, "
        "from the training with rewards.",
        "",
    ]


def _spread(values: Any) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "—"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "|".join("--:" if i else "---" for i in range(len(cells))) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
