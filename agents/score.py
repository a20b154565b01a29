"""The texts of a file, scored token by token without any training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from agents.specs import Spec
from textgym import rewards
from textgym.arguments import check_text
from textgym.files import atomic_write
from textgym.registry import did_you_mean
from textgym.rendering import Transcript, to_rich
from textgym.rendering.transcript import rounded
from textgym.rewards import Played
from textgym.tasks import Example
from textgym.tasks.rows import read_rows
from textgym.tokenizer import Tokenizer

TEXT_COLUMN = "text"


@dataclass(frozen=True)
class ScoreConfig:
    """Score the texts of a file, and show what each of their tokens earns."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FILE")]]
    """.txt with a text a line; or .csv or .jsonl with the texts in a column "text", and if need be
    their prompts in "prompt", references in "reference", and whatever else a reward takes."""
    reward: Spec = "sentiment"
    """What is paid, as for `textgym train`."""
    text_column: str = TEXT_COLUMN
    """The column of the texts."""
    every: rewards.Every = "token"
    """How often a score is taken."""
    tokenizer: str = "builtin"
    """Cuts texts into tokens: a model's name, a local directory, a GGUF file, or a hub id."""
    max_new_tokens: int | None = None
    """Budget of a text, for rewards that measure by it; None for the longest text's length."""
    show: int = 10
    """Texts to show; the table at the end is about all of them."""
    output: Path | None = None
    """Also write a JSON line a text here: its tokens, what each earned, and its scores."""

    def __post_init__(self) -> None:
        if self.show < 0:
            raise ValueError(f"show must be 0 or above, got {self.show}.")


def score(config: ScoreConfig, console: Console | None = None) -> list[Played]:
    """Score as the config says, print, and return what each text earned.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is malformed (the message names the line), or a setting is refused.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    texts, examples = _read(config.file, config.text_column)
    tokenizer = Tokenizer.from_pretrained(config.tokenizer)
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    token_ids = [[*tokenizer.encode_plain(text), *eos] for text in texts]
    reward = rewards.make(config.reward, every=config.every)
    played = rewards.replay(reward, tokenizer, examples, token_ids, config.max_new_tokens)
    for example, each in list(zip(examples, played, strict=True))[: config.show]:
        console.print(to_rich(Transcript(example.prompt, each.pieces, each.rewards)))
        console.print()
    if config.output is not None:
        records = zip(texts, examples, token_ids, played, strict=True)
        lines = [json.dumps(_record(*record), ensure_ascii=False) for record in records]
        atomic_write(config.output, "".join(f"{line}\n" for line in lines))
    console.print(_table(played))
    if reward.state_dict():
        console.print(
            "Weights change with training: tokens are paid as at its start, and the table shows "
            "scores as they are.",
            style="dim",
        )
    return played


def _read(path: Path, text_column: str) -> tuple[list[str], list[Example]]:
    """The texts of a file, and of each the prompt, the reference and whatever else is there."""
    if path.suffix.lower() == ".txt" and text_column != TEXT_COLUMN:
        raise ValueError(f"{path} has no columns, so that --text-column {text_column} finds none.")
    texts, examples = [], []
    for where, row in read_rows(path, text_column, what="text"):
        columns = dict(row)
        text = columns.pop(text_column, None)
        if text_column not in row:
            raise ValueError(
                f"{where}: no text in a column {text_column!r}; "
                f"{did_you_mean(text_column, row)}. Say which one to score with --text-column."
            )
        prompt, reference = columns.pop("prompt", None), columns.pop("reference", None)
        try:
            check_text("text", text)
            example = Example(prompt or "", reference or None, columns)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        texts.append(text)
        examples.append(example)
    return texts, examples


def _record(text: str, example: Example, token_ids: list[int], played: Played) -> dict[str, object]:
    return {
        "prompt": example.prompt,
        "text": text,
        "score": round(played.score, 6),
        "scores": {name: round(value, 6) for name, value in played.scores.items()},
        "token_ids": token_ids,
        "pieces": played.pieces,
        "rewards": [round(reward, 6) for reward in played.rewards],
    }


def _table(played: Sequence[Played]) -> Table:
    """Mean, spread and extremes of each reward over all texts, without weights, and of the sum."""
    columns = {name: [each.scores[name] for each in played] for name in played[0].scores}
    if len(columns) > 1:
        columns["weighted sum"] = [each.score for each in played]
    table = Table(title=f"{len(played)} text{'s' * (len(played) != 1)}", title_justify="left")
    table.add_column("reward", style="cyan")
    for heading in ("mean", "std", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for name, scores in columns.items():
        figures = (np.mean(scores), np.std(scores), min(scores), max(scores))
        table.add_row(name, *(rounded(float(figure), "+.3f") for figure in figures))
    return table
