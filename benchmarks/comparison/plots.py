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
from comparison.analysis import CONTROL, Result, gain, gain_error, learned_by, unit
from comparison.run import TIMINGS
from comparison.statistics import interval_over_rewards, smoothed
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
            axis.axhline(comparison.smaller.target, color="0.35", lw=0.7, ls=":")
        axis.set_title(_named(result.name), loc="left", fontsize=9)
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
        axis.set_title(_named(result.name), loc="left", fontsize=9)
    _finish(figure, panels, "KL from the base model, nats a text", "gain, std. dev. of base texts")
    _save(figure, path)


def token_ratios(found: Sequence[Result], generator: np.random.Generator, path: Path) -> None:
    """How many times as many tokens delayed needs, a line a reward, with intervals."""
    shown = sorted(
        (result for result in found if any(result.comparison.learned)),
        key=lambda result: result.comparison.smaller.ratio,
    )
    figure, axis = plt.subplots(figsize=(6.2, 1.5 + 0.24 * len(shown)), layout="constrained")
    for place, result in enumerate(shown):
        ratio, (low, high) = result.comparison.smaller.ratio, result.interval
        told = result.verdict in ("immediate faster", "delayed faster")
        color = COLORS["immediate" if ratio >= 1 else "delayed"] if told else "0.45"
        immediate, delayed = result.comparison.learned
        marker = "o" if immediate and delayed else ">" if immediate else "<"
        if not (immediate and delayed):
            color = COLORS["immediate" if immediate else "delayed"]
        axis.plot([low, high], [place, place], color=color, lw=1.6, alpha=0.6)
        axis.plot(ratio, place, marker, color=color, ms=6, mfc=color if told else "white", mew=1.4)
    both = learned_by(found, "both")
    if both:
        median = float(np.median([result.comparison.smaller.ratio for result in both]))
        spread = [result.resampled.smaller for result in both]
        low, high = interval_over_rewards(spread, np.median, generator)
        axis.axvspan(low, high, color="0.9", lw=0, zorder=0)
        axis.axvline(median, color="0.45", lw=1.2, zorder=0)
        text = f"median where both learned {median:.2f} [{low:.2f}, {high:.2f}]"
        axis.annotate(
            text, (median, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8
        )
    axis.axvline(1, color="black", lw=0.8, ls=":")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(shown)), [_named(result.name) for result in shown], fontsize=8)
    axis.set_ylim(-0.7, len(shown) - 0.3)
    axis.set_xlabel("tokens that delayed needs for each that immediate needs")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.25)
    figure.suptitle(
        "Right of 1, immediate reward is faster. Lines: 95% intervals.\n"
        "Filled: every seed of one side is faster too. Hollow grey: no clear difference.\n"
        "Arrows: only one side learned; the ratio is a bound, and may lie further that way.",
        fontsize=8,
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
        cells, errors = np.array(
            [[_change(store, n, timing, judge) for judge in judges] for n in trained]
        ).transpose(2, 0, 1)
        image = axis.imshow(cells, cmap="RdBu", vmin=-2, vmax=2)
        for (row, column), change in np.ndenumerate(cells):
            if abs(change) < 2 * errors[row, column]:
                place = (column - 0.5, row - 0.5)
                axis.add_patch(Rectangle(place, 1, 1, color="0.93", lw=0))
                color = "0.6"
            else:
                color = "white" if abs(change) > 1.3 else "black"
            axis.text(column, row, _short(change), ha="center", va="center", fontsize=6, c=color)
            if trained[row] == judges[column]:
                place = (column - 0.5, row - 0.5)
                axis.add_patch(Rectangle(place, 1, 1, fill=False, lw=1.2, clip_on=False, zorder=3))
        axis.set_xticks(range(len(judges)), judges, rotation=90, fontsize=8)
        axis.set_yticks(range(len(trained)), trained, fontsize=8)
        axis.tick_params(length=0)
        axis.set_anchor("N")
        axis.set_title(task, loc="left", fontsize=9)
        axis.set_xlabel("judged by", fontsize=9)
    axes[0, 0].set_ylabel(f"trained with ({timing})", fontsize=9)
    bar = figure.colorbar(image, ax=axes[0].tolist(), extend="both", extendfrac=0.03, aspect=40)
    bar.set_label(
        "change of the mean score,\nstd. deviations of base texts;\ngrey: within 2 std. errors",
        fontsize=8,
    )
    bar.ax.tick_params(labelsize=7)
    _save(figure, path)


def _change(store: Store, name: str, timing: str, judge: str) -> tuple[float, float]:
    gains = gain(store, name, timing, judge)
    if not len(gains):
        return float("nan"), float("nan")
    return float(gains.mean()), gain_error(store, name, timing, judge)


def _short(change: float) -> str:
    """At most four characters, which is what a cell has room for."""
    if np.isnan(change):
        return ""
    digits = 1 if abs(change) < 9.95 else 0
    return f"{round(change, digits) + 0.0:.{digits}f}"  # never -0.0


def _named(name: str) -> str:
    return f"{name} (control)" if name in CONTROL else name


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
