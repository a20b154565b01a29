"""What a run leaves for a person to look at."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from agents.episodes import Episode
from agents.evaluation import mean_score
from textgym.files import atomic_write
from textgym.rendering import to_html, token_text
from textgym.tokenizer import Tokenizer

CURVES = {
    "rollout/ep_rew_mean": "score of a text (mean)",
    "objective/kl": "distance from the model before training (KL, nats a text)",
    "train/approx_kl": "change of the policy in an update (approximate KL, nats)",
    "train/entropy_loss": "entropy of the next token (nats)",
}
"""Columns of SB3's `progress.csv` that are drawn, with their titles."""

TEAL, VERMILION = "#12836b", "#c8501e"


def comparison(
    before: Sequence[Episode], after: Sequence[Episode], tokenizer: Tokenizer, rows: int = 6
) -> Table:
    """A table of the same prompts before and after training, tokens coloured by reward."""
    table = Table(
        title="Held-out prompts before and after training", title_justify="left", show_lines=True
    )
    table.add_column("prompt", style="dim", ratio=3)
    for title, episodes in (("before", before), ("after", after)):
        table.add_column(title, ratio=6)
        table.add_column("score", justify="right", footer=f"{mean_score(episodes):+.3f}")
    scale = max(
        (abs(reward) for episode in (*before, *after) for reward in episode.rewards), default=0.0
    )
    for old, new in list(zip(before, after, strict=True))[:rows]:
        table.add_row(
            old.prompt,
            token_text(old.transcript(tokenizer), scale=scale or None),
            f"{old.score:+.2f}",
            token_text(new.transcript(tokenizer), scale=scale or None),
            f"{new.score:+.2f}",
        )
    return table


def write_page(
    path: Path, before: Sequence[Episode], after: Sequence[Episode], tokenizer: Tokenizer
) -> None:
    """Write a page with the texts before and after training, every token coloured by reward."""
    transcripts = [
        episode.transcript(tokenizer)
        for pair in zip(before, after, strict=True)
        for episode in pair
    ]
    title = (
        f"Held-out prompts: mean score {mean_score(before):+.3f} before training, "
        f"{mean_score(after):+.3f} after"
    )
    labels = ["Before", "After"] * len(before)
    atomic_write(path, to_html(transcripts, title=title, labels=labels))


def plot_curves(progress: Path, picture: Path, before: float, after: float) -> None:
    """Draw the course of a run from SB3's `progress.csv`.

    Args:
        progress: The log.
        picture: The PNG to write.
        before: Mean score of held-out prompts before training.
        after: The same after training.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = read_progress(progress)
    curves = {key: title for key, title in CURVES.items() if any(key in row for row in rows)}
    figure, axes = plt.subplots(
        max(len(curves), 1), 1, figsize=(8, 2.6 * max(len(curves), 1)), sharex=True, squeeze=False
    )
    for axis, (key, title) in zip(axes[:, 0], curves.items(), strict=False):
        sign = -1.0 if key == "train/entropy_loss" else 1.0  # SB3 logs the negative entropy
        points = [(row["time/total_timesteps"], sign * row[key]) for row in rows if key in row]
        axis.plot(*zip(*points, strict=True), "o-", color=TEAL, markersize=3, linewidth=1.8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        if axis is axes[0, 0]:
            axis.lines[0].set_label("training, last 100 texts")
    last = max((row["time/total_timesteps"] for row in rows), default=1.0)
    axes[0, 0].scatter(
        [0, last], [before, after], color=VERMILION, zorder=3, label="held-out prompts"
    )
    axes[0, 0].legend(frameon=False, loc="lower right", fontsize=9)
    axes[-1, 0].set_xlabel("tokens written in training")
    figure.tight_layout()
    temporary = picture.with_name(f".{picture.name}")
    figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    temporary.replace(picture)


def read_progress(path: Path) -> list[dict[str, float]]:
    """The rows of SB3's `progress.csv`, without the cells that are empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
