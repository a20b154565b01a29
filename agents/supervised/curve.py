"""The picture of a supervised run."""

from __future__ import annotations

from pathlib import Path

from agents.reporting.picture import INK, TEAL, VERMILION
from agents.reporting.progress import read_progress

TRAINING = "train/loss"
"""The column of `progress.csv` with the loss of a training token, smoothed."""

HELD_OUT = "validation/loss"
"""The column with the loss of a held-out token."""


def plot_losses(progress: Path, picture: Path, before: float | None) -> None:
    """Draw the losses of a run from its `progress.csv`.

    Args:
        progress: The log.
        picture: The PNG to write.
        before: The held-out loss before training; None if nothing is held out.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = read_progress(progress)
    figure, axis = plt.subplots(figsize=(8, 3.2))
    axis.plot(*_points(rows, TRAINING), color=TEAL, linewidth=1.4, label="training texts")
    held_out = _points(rows, HELD_OUT)
    if held_out[0]:
        axis.plot(*held_out, "s-", color=INK, markersize=4, linewidth=1, label="held-out texts")
    if before is not None:
        axis.scatter([0], [before], color=VERMILION, zorder=3, label="held-out, before training")
    axis.set_title("loss (cross-entropy, nats a token)", loc="left", fontsize=10)
    axis.set_xlabel("tokens learned")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    temporary = picture.with_name(f".{picture.name}")
    figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    temporary.replace(picture)


def _points(rows: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    found = [(row["time/total_timesteps"], row[key]) for row in rows if key in row]
    return [x for x, _ in found], [y for _, y in found]
