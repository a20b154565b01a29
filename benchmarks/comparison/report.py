"""The report, in Markdown: the answer, a table a question, and what a sceptic should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comparison import base, notes, rewards
from comparison.analysis import (
    Result,
    changed_judges,
    effort,
    gain,
    gain_error,
    threshold,
    unit,
)
from comparison.answer import answer, faster
from comparison.markdown import head, named, number, picture, row, spread
from comparison.pilot import pilot
from comparison.run import TIMINGS
from comparison.same_lambda import same_lambda
from comparison.store import Store

WHAT = """\
A small language model is trained with many reward functions, each one in two ways: **immediate**
pays at every token what the text has gained in score by it, **delayed** pays the whole score with
the last token. A text's score is the same both ways; only when it is paid differs. All else is the
same for both but one setting, lambda, which says how far ahead a reward is credited: what is
compared is immediate at lambda {immediate:g} against delayed at lambda {delayed:g}."""


def report(
    store: Store,
    found: Sequence[Result],
    other: tuple[Store, Sequence[Result]],
    settings: Mapping[str, Any],
    lambdas: Mapping[str, float],
    machine: Mapping[str, Any],
    pilot_store: Store,
    stem: str,
    generator: np.random.Generator,
) -> str:
    """All of it.

    Args:
        store: Has the runs that are compared, and the base model's scores.
        found: What came out of them.
        other: The same, where immediate had the lambda of delayed.
        settings: What all runs have in common.
        lambdas: By timing.
        machine: What it ran on.
        pilot_store: Has the runs that tried lambdas.
        stem: What the files of the pictures begin with.
        generator: Draws the rewards of intervals.
    """
    lines = ["# Which reward teaches what, and how much does immediate beat delayed?", ""]
    lines += [" ".join(WHAT.format(**lambdas).split()), ""]
    if found:
        lines += answer(store, found, other[1], lambdas, generator)
        lines += faster(found, stem)
        lines += _held_out(store, found, stem)
        lines += _efforts(store, found)
        lines += _texts(store, found, stem)
        lines += same_lambda(store, found, other, lambdas)
    lines += pilot(pilot_store, store)
    lines += notes.of(store, [result.name for result in found], changed_judges(store))
    lines += ["## Settings and machine", ""]
    lines += [f"- {key}: {value}" for key, value in (*settings.items(), *machine.items())]
    return "\n".join([*lines, ""])


def _held_out(store: Store, found: Sequence[Result], stem: str) -> list[str]:
    names = [result.name for result in found]
    floored = [n for n in names if unit(store, n) > base.score(store, n).std]
    count = max(base.score(store, name).count for name in names)
    errors = [gain_error(store, n, t, n) for n in names for t in TIMINGS]
    lines = [
        "## How far does each reward get?",
        "",
        f"Mean score of texts on held-out prompts: of the base model ({count} texts a task), and "
        "after training (mean over seeds ± their standard deviation). The gain is in standard "
        "deviations of the base model's texts"
        + (
            f", but these count as at least {base.SMALLEST_UNIT:.0%} of the width of the reward's "
            f"range ({', '.join(floored)})"
            if floored
            else ""
        )
        + f". A gain has a standard error of about {np.median(errors):.2f} (median).",
        "",
        *head(
            *("reward", "task", "base model", "after immediate", "after delayed"),
            *("gain, immediate", "gain, delayed"),
        ),
    ]
    for name in names:
        after = [store.column(f"after: {name}", reward=name, timing=timing) for timing in TIMINGS]
        gains = [gain(store, name, timing, name).mean() for timing in TIMINGS]
        lines.append(
            row(
                *(named(name), rewards.REWARDS[name].task),
                f"{base.score(store, name).mean:.3f}",
                *(spread(scores) for scores in after),
                *(f"{value:+.2f}" for value in gains),
            )
        )
    cells = [
        gain_error(store, name, timing, judge)
        for name in names
        for timing in TIMINGS
        for judge in rewards.of_task(rewards.REWARDS[name].task)
        if np.isfinite(store.column(f"after: {judge}", reward=name, timing=timing)).all()
    ]
    lines += [
        "",
        "The next two pictures say what training with one reward (row) does to the scores that all "
        "rewards of the task give (columns), in the same unit. One standard error of a cell is "
        f"about {np.median(cells):.2f} (median; from the spread over seeds, but at least that of "
        "as many base texts, and the error of the base model's mean). Cells within two standard "
        "errors of nothing are grey; of cells in which nothing has changed, one in twenty is not "
        "grey by chance.",
        "",
    ]
    for timing in TIMINGS:
        lines += picture(stem, f"judged_{timing}", f"Trained with {timing} reward, judged by all")
    return lines


def _efforts(store: Store, found: Sequence[Result]) -> list[str]:
    lines = [
        "## What does it take to learn a reward?",
        "",
        "Until the mean learning curve reaches a threshold. It is the score 0.5 where an answer is "
        "right or wrong; elsewhere it lies one standard deviation above the mean of base texts, "
        "but not more than half of the way from there to the highest score there is. Seconds are "
        "processor time of one thread, until the last of these tokens is written. A dash is never "
        "within the budget.",
        "",
        *head(
            *("reward", "threshold", "tokens, immediate", "tokens, delayed"),
            *("seconds, immediate", "seconds, delayed"),
        ),
    ]
    for result in found:
        target = threshold(store, result.name)
        efforts = [effort(result, timing, target) for timing in TIMINGS]
        lines.append(
            row(
                named(result.name),
                f"{target:.3f}",
                *(number(tokens) for tokens, _ in efforts),
                *(number(seconds) for _, seconds in efforts),
            )
        )
    return [*lines, ""]


def _texts(store: Store, found: Sequence[Result], stem: str) -> list[str]:
    of_task: dict[str, list[str]] = {}
    for result in found:
        of_task.setdefault(rewards.REWARDS[result.name].task, []).append(result.name)
    lines = [
        "## What does it do to the texts?",
        "",
        "Of held-out texts: their mean length in tokens, and distinct-2, the share of different "
        "pairs among all pairs of neighbouring words, which falls when texts repeat themselves and "
        "each other. Longer texts have a lower distinct-2 by themselves, so that it compares only "
        "models of like lengths; the runs keep the number and not the texts, from which it could "
        "be taken over a fixed number of words. KL is how far the model has moved from the base "
        "model, in nats a text, in the last rollout.",
        "",
        *head(
            *("trained with", "length, immediate", "length, delayed"),
            *("distinct-2, immediate", "distinct-2, delayed", "KL, immediate", "KL, delayed"),
        ),
    ]
    for task, names in of_task.items():
        length, distinct = (base.level(store, task, what).mean for what in ("length", "distinct_2"))
        both = [f"{length:.1f}"] * 2 + [_share(distinct)] * 2
        lines.append(row(f"*nothing ({task})*", *both, "0", "0"))
        for name in names:
            lengths, shares, kls = (
                [store.column(column, reward=name, timing=timing).mean() for timing in TIMINGS]
                for column in ("length", "distinct_2", "kl")
            )
            cells = [f"{mean:.1f}" for mean in lengths]
            cells += [_share(mean) for mean in shares]
            cells += [f"{mean:.1f}" for mean in kls]
            lines.append(row(named(name), *cells))
    text = "What a gain costs in distance from the base model; the dot is where training ends"
    return [*lines, "", *picture(stem, "kl", text)]


def _share(distinct: float) -> str:
    return f"{distinct:.2f}" if distinct else "—"  # texts of one word have no pairs
