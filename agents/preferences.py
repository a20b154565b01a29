"""What people preferred: prompts, each with a chosen and a rejected answer, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from textgym.tasks import Task
from textgym.tasks.file import file as prompts_file
from textgym.tasks.rows import read_rows

FIELDS = ("prompt", "chosen", "rejected")


class Preference(NamedTuple):
    """A prompt, and of two answers to it the one that was chosen."""

    prompt: str
    chosen: str
    rejected: str


def read_preferences(
    path: Path, validation_fraction: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """The pairs to train on and the pairs to hold out, no prompt among both.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or holds less than two different prompts, or
            a field is missing, empty or no text, or both answers are the same; the message names
            the line.
    """
    for where, row in read_rows(path, "prompt", kinds=(".csv", ".jsonl")):
        _check_row(where, row)
    task = prompts_file(path, validation_fraction=validation_fraction, test_fraction=0, seed=seed)
    if "validation" not in task.splits or not task.splits["validation"]:
        raise ValueError(
            f"{path} has the same prompt in every row, so that none can be held out. Give at "
            "least two different prompts."
        )
    return _preferences(task, "train"), _preferences(task, "validation")


def _preferences(task: Task, split: str) -> list[Preference]:
    examples = task.split(split)
    assert isinstance(examples, tuple)  # a file's are in memory
    return [
        Preference(example.prompt, example.columns["chosen"], example.columns["rejected"])
        for example in examples
    ]


def _check_row(where: str, row: dict[str, Any]) -> None:
    for field in FIELDS:
        if field not in row:
            raise ValueError(
                f"{where}: no field {field!r}; there are {', '.join(map(repr, row)) or 'none'}. "
                "A preference has the fields prompt, chosen and rejected."
            )
        if not isinstance(row[field], str) or not row[field].strip():
            raise ValueError(
                f"{where}: {field} is a text that is not empty, got {row[field]!r}. Correct or "
                "remove the row."
            )
    if row["chosen"] == row["rejected"]:
        raise ValueError(
            f"{where}: chosen and rejected are the same, {row['chosen'][:80]!r}, and there is "
            "nothing to learn from that. Correct or remove the row."
        )
