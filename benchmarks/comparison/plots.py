"""The pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from comparison import rewards, tasks
from comparison.analysis import Result, compared, gain, unit
from comparison.run import TIMINGS
from comparison.statistics import median_interval, smoothed
from comparison.store import Store

matplotlib.use("agg")

COLORS = {"immediate": "#12836b", "delayed": "#c8501e"}
LINES = {"immediate": "-", "delayed": (0, (5, 1.5))}
"""The colours are told apart by those who do not see red or green; the dashes need no colour."""

COLUMNS = 5


def learning_curves(found: Sequence[Result], path: Path) -> None:
    """The score against the tokens learned from, a panel a reward, with the range of the seeds."""
    figure, panels = _grid(len(found))
    for axis, result in zip(panels, found, strict=True):
        thousands = result.tokens / 1000
        for timing in TIMINGS:
            scores = result.scores[timing]
            color = COLORS[timing]
            axis.fill_between(
                thousands, scores.min(0), scores.max(0), color=color, alpha=0.18, linewidth=0
            )
            axis.plot(thousands, scores.mean(0), color=color, ls=LINES[timing], label=timing)
        comparison = result.comparison
        if any(comparison.learned):
            axis.axhline(comparison.target, color="0.35", lw=0.7, ls=":")
        axis.set_title(result.name, loc="left", fontsize=9)
    _finish(figure, panels, "thousand tokens learned from", "mean score of a text")
    _save(figure, path)


def score_against_kl(store: Store, found: Sequence[Result], path: Path) -> None:
    """What a score costs: gain against the distance from the base model, on the way of training."""
    figure, panels = _grid(len(found))
    for axis, result in zip(panels, found, strict=True):
        for timing in TIMINGS:
            scores = smoothed(result.scores[timing].mean(0))
            kl = smoothed(result.kls[timing].mean(0))
            gained = (scores - scores[0]) / unit(store, result.name)
            axis.plot(kl, gained, color=COLORS[timing], ls=LINES[timing], label=timing)
            axis.plot(kl[-1], gained[-1], "o", color=COLORS[timing], ms=4)
        axis.axhline(0, color="0.35", lw=0.7, ls=":")
        axis.set_title(result.name, loc="left", fontsize=9)
    _finish(figure, panels, "KL from the base model, nats a text", "gain, std. dev. of base texts")
    _save(figure, path)


def token_ratios(found: Sequence[Result], generator: np.random.Generator, path: Path) -> None:
    """How many times as many tokens delayed needs, a line a reward, with intervals."""
    shown = sorted(compared(found), key=lambda result: result.comparison.ratio)
    figure, axis = plt.subplots(figsize=(6.2, 1.3 + 0.24 * len(shown)), layout="constrained")
    for place, result in enumerate(shown):
        ratio, (low, high) = result.comparison.ratio, result.interval
        color = COLORS["immediate" if ratio >= 1 else "delayed"]
        bound = not all(result.comparison.learned)
        axis.plot([low, high], [place, place], color=color, lw=1.6, alpha=0.6)
        axis.plot(ratio, place, "o", color=color, ms=6, mfc="white" if bound else color, mew=1.4)
    if shown:
        median = float(np.median([result.comparison.ratio for result in shown]))
        low, high = median_interval([result.resampled for result in shown], generator)
        axis.axvspan(low, high, color="0.88", lw=0, zorder=0)
        axis.axvline(median, color="0.45", lw=1.2, zorder=0)
        text = f"median {median:.2g} [{low:.2g}, {high:.2g}]"
        axis.annotate(
            text, (median, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8
        )
    axis.axvline(1, color="black", lw=0.8, ls=":")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(shown)), [result.name for result in shown], fontsize=8)
    axis.set_ylim(-0.7, len(shown) - 0.3)
    axis.set_xlabel("tokens that delayed needs for each that immediate needs")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.25)
    figure.suptitle(
        "Above 1, immediate reward is faster. Lines: 95% intervals.\n"
        "Hollow: only one side learned, and the ratio is a bound.",
        fontsize=9,
        x=0.02,
        ha="left",
    )
    _save(figure, path)


def judged(store: Store, timing: str, path: Path) -> None:
    """What training with a reward (row) does to all others (columns), on held-out texts."""
    groups = []
    for task in tasks.NAMES:
        rows = store.select(store.runs, task=task)
        trained = [n for n in rewards.of_task(task) if any(row["reward"] == n for row in rows)]
        judges = [n for n in rewards.of_task(task) if any(f"after: {n}" in row for row in rows)]
        if trained:
            groups.append((task, trained, judges))
    cell, margin = 0.33, 1.4
    widths = [cell * len(judges) for _, _, judges in groups]
    height = max(cell * max(len(trained) for _, trained, _ in groups) + margin, 2.8)
    figure, axes = plt.subplots(
        1,
        len(groups),
        figsize=(sum(widths) + margin * (len(groups) + 0.5), height),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    for axis, (task, trained, judges) in zip(axes[0], groups, strict=True):
        cells = np.array([[_change(store, n, timing, judge) for judge in judges] for n in trained])
        image = axis.imshow(cells, cmap="RdBu", vmin=-2, vmax=2)
        for (row, column), change in np.ndenumerate(cells):
            color = "white" if abs(change) > 1.3 else "black"
            text = f"{round(change, 1) + 0.0:.1f}"  # never -0.0
            axis.text(column, row, text, ha="center", va="center", fontsize=6, c=color)
            if trained[row] == judges[column]:
                place = (column - 0.5, row - 0.5)
                axis.add_patch(Rectangle(place, 1, 1, fill=False, lw=1.2, clip_on=False))
        axis.set_xticks(range(len(judges)), judges, rotation=90, fontsize=8)
        axis.set_yticks(range(len(trained)), trained, fontsize=8)
        axis.tick_params(length=0)
        axis.set_anchor("N")
        axis.set_title(task, loc="left", fontsize=9)
        axis.set_xlabel("judged by", fontsize=9)
    axes[0, 0].set_ylabel(f"trained with ({timing})", fontsize=9)
    bar = figure.colorbar(image, ax=axes[0].tolist(), extend="both", extendfrac=0.03, aspect=40)
    bar.set_label("change of the mean score,\nstd. deviations of base texts", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    _save(figure, path)


def _change(store: Store, name: str, timing: str, judge: str) -> float:
    gains = gain(store, name, timing, judge)
    return float(gains.mean()) + 0.0 if len(gains) else float("nan")


def _grid(count: int) -> tuple[Any, list[Any]]:
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    size = (2.1 * columns + 0.4, 1.5 * rows + 0.7)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    panels = axes.ravel().tolist()
    for axis in panels[count:]:
        axis.remove()
    return figure, panels[:count]


def _finish(figure: Any, panels: Sequence[Any], x: str, y: str) -> None:
    for axis in panels:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    place = "outside upper right"
    figure.legend(handles, labels, loc=place, ncols=2, frameon=False, fontsize=9, handlelength=3)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    plt.close(figure)
