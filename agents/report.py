"""What a run leaves for a person to look at."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.episodes import Episode
from agents.evaluation import mean_score
from agents.judging import intervals
from agents.prompt_search import templates_table, verdict
from agents.run_directory import RunDirectory
from agents.validation import VALIDATION, VALIDATION_TIMESTEPS, Best
from agents.wording import say
from textgym.files import atomic_write
from textgym.process import TextProcess
from textgym.rendering import to_html, token_text
from textgym.tokenizer import Tokenizer

CURVES = {
    "rollout/ep_rew_mean": "score of a text (mean)",
    "objective/kl": "distance from the model before training (KL, nats a text)",
    "train/approx_kl": "change of the policy in an update (approximate KL, nats)",
    "train/entropy_loss": "entropy of the next token (nats)",
}
"""Columns of SB3's `progress.csv` that are drawn, with their titles."""

TEAL, VERMILION, INK = "#12836b", "#c8501e", "#5f6368"


def described(episodes: Sequence[Episode]) -> str:
    """How good texts are: the mean score with its interval, and how many succeed."""
    score = intervals.mean([episode.score for episode in episodes])
    text = f"mean score {score.value:+.3f}"
    if not math.isnan(score.low):
        text += f" ({score.low:+.3f} to {score.high:+.3f})"
    successes = [episode.success for episode in episodes if episode.success is not None]
    return text + (f", {np.mean(successes):.0%} solved" if successes else "")


def write_report(
    run: RunDirectory,
    what: str,
    before: Sequence[Episode],
    after: Sequence[Episode],
    process: TextProcess,
    best: Best | None,
    console: Console,
) -> None:
    """Write the curves and the page of a run that has ended, and print what became of it.

    Args:
        run: The run.
        what: The prompts on which it was judged, in a few words.
        before: What was written for them before training.
        after: The same after training, by the model that was kept.
        process: The environment's decision process.
        best: Which model that is; None for the last.
        console: Where to print.
    """
    scores = mean_score(before), mean_score(after)
    plot_curves(run.progress, run.curves, *scores, what, None if best is None else best.timesteps)
    write_page(run.page, what, before, after, process.tokenizer)
    console.print(comparison(what, before, after, process.tokenizer))
    if process.prompts.selection is not None and len(process.prompts.templates) > 1:
        console.print(templates_table(process.prompts.selection, process.prompts.templates))
        say(console, verdict(process.prompts.selection))
    if best is not None and best.templates is not None:
        put = f"{what}: put by all templates in turn before, and after by {best.templates[0]!r}"
        say(console, put)
    say(console, f"{what}: {described(before)} before,", "bold")
    say(console, f"{' ' * len(what)}  {described(after)} after (mean, 95% interval)", "bold")
    say(console, f"curves   {run.curves}\nsamples  {run.page}")


def comparison(
    what: str,
    before: Sequence[Episode],
    after: Sequence[Episode],
    tokenizer: Tokenizer,
    rows: int = 6,
) -> Table:
    """A table of the same prompts before and after training, tokens coloured by reward."""
    columns = [("before", before, tokenizer), ("after", after, tokenizer)]
    return side_by_side(f"{what} before and after training", columns, rows)


Column: TypeAlias = tuple[str, Sequence[Episode], Tokenizer]
"""A writer: its name, its texts, a text a prompt, and its tokenizer."""


def side_by_side(title: str, columns: Sequence[Column], rows: int) -> Table:
    """A table of texts for the same prompts, the first ones; tokens coloured by reward."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("prompt", style="dim", ratio=3)
    for name, _, _ in columns:
        table.add_column(Text(name), ratio=6, overflow="fold")
        table.add_column("score", justify="right")
    for prompt, texts in _coloured(columns, rows):
        table.add_row(Text(prompt), *(cell for text in texts for cell in text))
    return table


def stacked(title: str, columns: Sequence[Column], rows: int) -> Table:
    """As `side_by_side`, but one below the other, for more writers than a line has room for."""
    table = Table(title=title, title_justify="left")
    table.add_column("model", ratio=1, overflow="fold")
    table.add_column("text", ratio=4)
    table.add_column("score", justify="right")
    for prompt, texts in _coloured(columns, rows):
        table.add_section()
        table.add_row("", Text(prompt, style="dim"))
        for (name, _, _), text in zip(columns, texts, strict=True):
            table.add_row(Text(name), *text)
    return table


def _coloured(columns: Sequence[Column], rows: int) -> Iterator[tuple[str, list[tuple[Text, str]]]]:
    """The first prompts, and for each what the writers made of it, with its score."""
    earned = (r for _, episodes, _ in columns for episode in episodes for r in episode.rewards)
    scale = max(map(abs, earned), default=0.0) or None
    for row in zip(*(episodes[:rows] for _, episodes, _ in columns), strict=True):
        texts = [
            (token_text(episode.transcript(tokenizer), scale=scale), f"{episode.score:+.2f}")
            for episode, (_, _, tokenizer) in zip(row, columns, strict=True)
        ]
        yield row[0].prompt, texts


def write_page(
    path: Path,
    what: str,
    before: Sequence[Episode],
    after: Sequence[Episode],
    tokenizer: Tokenizer,
) -> None:
    """Write a page with the texts before and after training, every token coloured by reward."""
    transcripts = [
        episode.transcript(tokenizer)
        for pair in zip(before, after, strict=True)
        for episode in pair
    ]
    title = (
        f"{what}: mean score {mean_score(before):+.3f} before training, "
        f"{mean_score(after):+.3f} after"
    )
    labels = ["Before", "After"] * len(before)
    atomic_write(path, to_html(transcripts, title=title, labels=labels))


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
            looks = [
                (row[VALIDATION_TIMESTEPS], row[VALIDATION]) for row in rows if VALIDATION in row
            ]
            if looks:
                axis.plot(*zip(*looks, strict=True), "s-", color=INK, markersize=4, linewidth=1)
                axis.lines[1].set_label("validation prompts")
    last = max((row["time/total_timesteps"] for row in rows), default=1.0)
    judged = [0, last if kept is None else kept]
    axes[0, 0].scatter(judged, [before, after], color=VERMILION, zorder=3, label=what)
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
