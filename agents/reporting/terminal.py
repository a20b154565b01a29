"""Texts and what they earned, as tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from rich.table import Table
from rich.text import Text

from agents.episodes import Episode
from agents.judging import intervals
from textgym.rendering import token_text
from textgym.rendering.transcript import rounded
from textgym.tokenizer import Tokenizer


def described(episodes: Sequence[Episode]) -> str:
    """How good texts are: the mean score with its interval, and how many succeed."""
    score = intervals.mean([episode.score for episode in episodes])
    value, low, high = (rounded(n, "+.3f") for n in (score.value, score.low, score.high))
    text = (
        f"mean score {value}" if math.isnan(score.low) else f"mean score {value} ({low} to {high})"
    )
    successes = [episode.success for episode in episodes if episode.success is not None]
    return text + (f", {np.mean(successes):.0%} solved" if successes else "")


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
            (token_text(episode.transcript(tokenizer), scale=scale), rounded(episode.score, "+.2f"))
            for episode, (_, _, tokenizer) in zip(row, columns, strict=True)
        ]
        yield row[0].prompt, texts
