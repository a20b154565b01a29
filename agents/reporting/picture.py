"""The picture of a run's course."""

from __future__ import annotations

from pathlib import Path

from agents.reporting.curves import CHARTS, TRAINING, VALIDATION, points
from agents.reporting.progress import TIMESTEPS, read_progress

CURVES = {
    TRAINING: "score of a text (mean)",
    "objective/kl": "distance from the model before training (KL, nats a text)",
    "train/approx_kl": "change of the policy in an update (approximate KL, nats)",
    "train/entropy_loss": "entropy of the next token (nats)",
}
"""Columns of SB3's `progress.csv` that are drawn, with their titles."""

_CHARTS = {chart.column: chart for chart in CHARTS}

TEAL, VERMILION, INK = "#12836b", "#c8501e", "#5f6368"


def plot_curves(
    progress: Path, picture: Path, before: float, after: float, what: str, kept: int | None
) -> None:
    """Draw the course of a run from SB3's `progress.csv`.

    Args:
        progress: The log.
        picture: The PNG to write.
        before: Mean score of held-out prompts before training.
        after: The same after training.
        what: Which prompts these are.
        kept: After how many tokens of training the model was kept that was judged; None for the
            last.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = read_progress(progress)
    drawn = {
        title: found for column, title in CURVES.items() if (found := points(rows, _CHARTS[column]))
    }
    figure, axes = plt.subplots(
        max(len(drawn), 1), 1, figsize=(8, 2.6 * max(len(drawn), 1)), sharex=True, squeeze=False
    )
    for axis, (title, found) in zip(axes[:, 0], drawn.items(), strict=False):
        axis.plot(*zip(*found, strict=True), "o-", color=TEAL, markersize=3, linewidth=1.8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        if axis is axes[0, 0]:
            axis.lines[0].set_label("training, last 100 texts")
            if looks := points(rows, _CHARTS[VALIDATION]):
                axis.plot(*zip(*looks, strict=True), "s-", color=INK, markersize=4, linewidth=1)
                axis.lines[1].set_label("validation prompts")
    last = max((row[TIMESTEPS] for row in rows), default=1.0)
    judged = [0, last if kept is None else kept]
    axes[0, 0].scatter(judged, [before, after], color=VERMILION, zorder=3, label=what)
    axes[0, 0].legend(frameon=False, loc="best", fontsize=9)
    axes[-1, 0].set_xlabel("tokens written in training")
    figure.tight_layout()
    temporary = picture.with_name(f".{picture.name}")
    figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    temporary.replace(picture)
