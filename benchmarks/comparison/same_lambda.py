"""Immediate reward at delayed's lambda: how much of the difference is the timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comparison.analysis import Result, gain
from comparison.markdown import head, named, ratio, row
from comparison.store import Store


def same_lambda(
    store: Store,
    found: Sequence[Result],
    other: tuple[Store, Sequence[Result]],
    lambdas: Mapping[str, float],
) -> list[str]:
    """A table of the rewards that have a third kind of run; nothing if none has.

    Args:
        store: Has the runs with each timing's own lambda.
        found: What came out of them.
        other: The same, where immediate had the lambda of delayed.
        lambdas: Each timing's own.
    """
    other_store, others = other
    first = {result.name: result for result in found}
    others = [result for result in others if result.name in first]
    if not others:
        return []
    own, same = f"immediate, {lambdas['immediate']:g}", f"immediate, {lambdas['delayed']:g}"
    lines = [
        "## Is it the timing or lambda?",
        "",
        f"Some rewards were also paid immediately at delayed's lambda, {lambdas['delayed']:g}. "
        "Gains on held-out prompts, in the unit of above, and tokens that delayed needs for each "
        "that immediate needs, with 95% intervals.",
        "",
        *head(
            *("reward", f"gain, {own}", f"gain, {same}"),
            *(f"gain, delayed, {lambdas['delayed']:g}", f"ratio, {own}", f"ratio, {same}"),
        ),
    ]
    for result in others:
        name = result.name
        gains = (
            gain(store, name, "immediate", name),
            gain(other_store, name, "immediate", name),
            gain(store, name, "delayed", name),
        )
        cells = [_ratio(first[name]), _ratio(result)]
        lines.append(row(named(name), *(f"{g.mean():+.2f}" for g in gains), *cells))
    return [*lines, ""]


def _ratio(result: Result) -> str:
    if not any(result.comparison.learned):
        return "neither learned"
    low, high = result.interval
    return f"{ratio(result)} [{low:.2f} to {high:.2f}]"
