"""The pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from learning.curves import Cost, Curves

matplotlib.use("agg")

COLORS = ("#12836b", "#c8501e", "#3b6fb6", "#8a4fa3", "#b8860b", "#4a4a4a", "#d1497f", "#5aa9c9")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
"""The dashes tell neighbours apart where colours do not."""

LABELS = {
    "tokens": "thousand tokens written in training",
    "seconds": "processor seconds of training",
    "wall": "seconds of training",
}


def learning_curves(panels: dict[str, Sequence[Curves]], costs: Sequence[Cost], path: Path) -> None:
    """Held-out scores, a column of panels a group of arms and a row a cost, with their ranges."""
    figure, axes = plt.subplots(
        len(costs),
        len(panels),
        figsize=(4.6 * len(panels) + 0.4, 3.2 * len(costs)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for row, of in zip(axes, costs, strict=True):
        for axis, (title, group) in zip(row, panels.items(), strict=True):
            for place, found in enumerate(group):
                _draw(axis, found, of, place)
            axis.set_title(title, loc="left", fontsize=10)
            axis.set_xlabel(LABELS[of], fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
            axis.tick_params(labelsize=8)
            axis.xaxis.set_major_locator(MaxNLocator(6))
        row[0].set_ylabel("mean score, held-out prompts", fontsize=9)
    for axis in axes[0]:
        axis.legend(frameon=False, fontsize=7.5, loc="upper left", handlelength=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _draw(axis: Any, found: Curves, of: Cost, place: int) -> None:
    across = found.cost(of).mean(0) / (1000 if of == "tokens" else 1)
    color = COLORS[place % len(COLORS)]
    low, high = found.scores.min(0), found.scores.max(0)
    axis.fill_between(across, low, high, color=color, alpha=0.13, lw=0)
    line = LINES[place % len(LINES)]
    axis.plot(across, found.scores.mean(0), color=color, ls=line, lw=1.6, label=found.arm)
    axis.plot(across[-1], np.mean(found.scores[:, -1]), "o", color=color, ms=4)
