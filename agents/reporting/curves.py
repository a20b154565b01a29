"""Learning curves: the mean over the runs of a group, and how far these lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.reporting.groups import Group
from agents.reporting.progress import TIMESTEPS

Points = Sequence[tuple[float, float]]
"""Where a curve goes: tokens of training, and the number that was logged then."""


MOST_POINTS = 1_000
"""Of a run in a chart: a page shall not grow with its updates."""


@dataclass(frozen=True)
class Curve:
    """One column of the logs of a group's runs, p points.

    Attributes:
        timesteps: Tokens of training, ascending, (p,).
        mean: The mean over the runs that came so far, (p,).
        low: The smallest of them, (p,).
        high: The largest, (p,).
        runs: How many they are, (p,).
    """

    timesteps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    runs: Sequence[int]


@dataclass(frozen=True)
class Chart:
    """A column of the log as it is shown.

    Attributes:
        column: The column.
        title: What it is, in a few words.
        note: What that means, or how it was measured.
        section: The heading that it stands under.
        at: The column that says when it was measured.
        sign: -1 for what is logged with the other sign.
    """

    column: str
    title: str
    note: str
    section: str
    at: str = TIMESTEPS
    sign: float = 1.0


SCORE = "Score and rewards"
REST = "All else that was logged"
TRAINING = "rollout/ep_rew_mean"
"""The column with the mean score of the last texts of training."""

VALIDATION = "validation/mean_score"
"""The column with the mean score of the validation prompts."""

_VALIDATED = "validation/timesteps"

CHARTS = (
    Chart(TRAINING, "Score in training", "mean of the last 100 texts", SCORE),
    Chart(
        VALIDATION,
        "Score on validation prompts",
        "mean; the model that does best is kept",
        SCORE,
        _VALIDATED,
    ),
    Chart("rollout/success_rate", "Solved in training", "share of the last 100 texts", SCORE),
    Chart(
        "validation/success_rate",
        "Solved validation prompts",
        "share of the texts",
        SCORE,
        _VALIDATED,
    ),
    Chart("train/loss", "Loss", "of training texts, nats a token", "Supervised learning"),
    Chart("validation/loss", "Held-out loss", "nats a token", "Supervised learning"),
    Chart(
        "objective/kl",
        "KL from the model before training",
        "nats a text: how far it has moved",
        "The policy",
    ),
    Chart(
        "train/approx_kl",
        "Approximate KL of an update",
        "nats a token: how far one update moves it",
        "The policy",
    ),
    Chart(
        "train/entropy_loss", "Entropy", "of the next token, nats", "The policy", sign=-1.0
    ),  # SB3 logs the negative entropy
    Chart("completions/mean_length", "Length of a text", "mean, tokens", "The policy"),
    Chart("train/clip_fraction", "Clipped", "share of the tokens of an update", "Learning"),
    Chart(
        "train/explained_variance",
        "Explained variance",
        "of the returns, by the critic: 1 is all of it",
        "Learning",
    ),
    Chart("train/value_loss", "Value loss", "of the critic", "Learning"),
    Chart("objective/kl_coef", "KL coefficient", "price of a nat", "Learning"),
    Chart("train/learning_rate", "Learning rate", "of the optimizer", "Learning"),
    Chart("rollout/exploration_rate", "Exploration", "share of tokens by chance", "Learning"),
)
"""Columns that are shown in any run that logged them, in this order."""

_SUPERVISED = ("Supervised learning",)
_CLOCKS = ("time/", "validation/timesteps", "validation/best_score", "train/n_updates")


def charts(groups: Sequence[Group]) -> list[Chart]:
    """The charts that there are data for: well-known ones, rewards, and the rest."""
    columns = {
        column: None
        for group in groups
        for run in group.runs
        for row in run.progress
        for column in row
    }
    supervised = all(run.command != "train" for group in groups for run in group.runs)
    known = [
        chart
        for chart in CHARTS
        if chart.column in columns and (supervised or chart.section not in _SUPERVISED)
    ]
    first = sum(chart.section == SCORE for chart in known)
    shown = [*known[:first], *_of_rewards(columns), *known[first:]]
    named = {chart.column for chart in shown}
    shown = [chart for chart in shown if _always(chart) or _moves(groups, chart)]
    rest = [
        Chart(column, column, "", REST)
        for column in sorted(columns)
        if column not in named and not column.startswith(_CLOCKS)
    ]
    return shown + [chart for chart in rest if _moves(groups, chart)]


def _of_rewards(columns: Mapping[str, None]) -> list[Chart]:
    shown = []
    for kind, what, note in (
        ("mean", "", "mean of a rollout's texts, without its weight"),
        ("weight", ": weight", "as a curriculum has it"),
    ):
        for column in sorted(columns):
            if column.startswith("rewards/") and column.endswith(f"/{kind}"):
                name = column.removeprefix("rewards/").removesuffix(f"/{kind}")
                shown.append(Chart(column, f"{name}{what}", note, SCORE))
    return shown


def _always(chart: Chart) -> bool:
    """Whether a chart is shown even if it is a level line."""
    return chart.section == SCORE and not chart.column.endswith("/weight")


def _moves(groups: Sequence[Group], chart: Chart) -> bool:
    """Whether a column says more than one number throughout."""
    return any(
        len({value for _, value in points(run.progress, chart)}) > 1
        for group in groups
        for run in group.runs
    )


def points(rows: Sequence[Mapping[str, float]], chart: Chart) -> list[tuple[float, float]]:
    """What one run logged of a chart, by tokens of training; the last where there are several."""
    found = {
        row[chart.at]: chart.sign * row[chart.column] + 0.0  # never -0.0
        for row in rows
        if chart.column in row and chart.at in row and math.isfinite(row[chart.column])
    }
    return sorted(found.items())


def thinned(of_run: Points, most: int = MOST_POINTS) -> Points:
    """The points of a run, or where they are too many, means of neighbours.

    Args:
        of_run: The points, ascending.
        most: How many are wanted at most.
    """
    if len(of_run) <= most:
        return of_run
    parts = np.array_split(np.array(of_run, np.float64), most)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)]


def curve(runs: Sequence[Points]) -> Curve:
    """The mean over runs, with the smallest and the largest, wherever one of them was measured.

    Between its own points a run is where the straight line between them is; before its first and
    after its last it is not counted.

    Args:
        runs: The points of each run, ascending; those without any are left out.
    """
    runs = [each for each in runs if each]
    grid = np.array(sorted({x for each in runs for x, _ in each}), np.float64)
    if not len(grid):
        return Curve([], [], [], [], [])
    values = np.stack([_at(grid, each) for each in runs])
    return Curve(
        grid.tolist(),
        np.nanmean(values, 0).tolist(),
        np.nanmin(values, 0).tolist(),
        np.nanmax(values, 0).tolist(),
        (~np.isnan(values)).sum(0).tolist(),
    )


def _at(grid: NDArray[np.float64], of_run: Points) -> NDArray[np.float64]:
    x, y = np.array(of_run, np.float64).T
    values: NDArray[np.float64] = np.interp(grid, x, y, left=math.nan, right=math.nan)
    return values
