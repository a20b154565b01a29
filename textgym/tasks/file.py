"""Prompts from a user's own file: a line of text, a row of a table or a JSON object each."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from textgym.tasks.base import Example, Task
from textgym.tasks.rows import no_column, read_rows
from textgym.tasks.splitting import check_fractions, hold_out

REFERENCE = "reference"


def file(
    path: str | PathLike[str],
    validation: str | PathLike[str] | None = None,
    test: str | PathLike[str] | None = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    prompt_column: str = "prompt",
    reference_column: str = REFERENCE,
) -> Task:
    """Read prompts from a .txt, .csv or .jsonl file.

    - `.txt`: one prompt a line, kept as it stands but for the line's end; blank lines are skipped.
    - `.csv`: a header, then one prompt a row, comma-separated as in RFC 4180: a field that holds a
      comma, a quote or a line break stands in double quotes. All values are strings.
    - `.jsonl`: one JSON object a line. A column that only some lines have is None on the others.

    All are UTF-8, with or without a byte order mark. A reference that is absent, empty or null is
    None. Every column but the prompt and the reference goes to `Example.columns`, and from there
    to the reward.

    A split without a file of its own is held out of `path`: its fraction of the different prompts,
    but at least one. Rows with the same prompt stay together, so that nothing is both trained and
    tested on. Which are held out depends on `seed` and the prompts alone, not on their order or
    the machine. A file with too few prompts to give each split one goes to training whole, and
    the task then has no such split: to score on the training prompts, say so by giving the same
    file twice.

    Args:
        path: The file to train on.
        validation: The file to choose settings by; held out of `path` if None.
        test: The file to report on; held out of `path` if None.
        validation_fraction: Share of prompts to hold out for validation, from 0 (no such split) to
            below 1. Not used if `validation` is given.
        test_fraction: The same for the test split.
        seed: Chooses which prompts are held out.
        prompt_column: The column of the prompts; means nothing for .txt.
        reference_column: The column of the references. It may be absent if it is "reference".

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a file is of another kind, holds no prompt, or is malformed (the message
            names the line), or if the fractions are out of range.
    """
    given = {"validation": validation, "test": test}
    fractions = {"validation": validation_fraction, "test": test_fraction}
    fractions = {split: f for split, f in fractions.items() if given[split] is None}
    check_fractions(fractions)
    splits = hold_out(_read(Path(path), prompt_column, reference_column), fractions, seed)
    for split, own_file in given.items():
        if own_file is not None:
            splits[split] = tuple(_read(Path(own_file), prompt_column, reference_column))
    return Task(Path(path).name, splits)


def _read(path: Path, prompt_column: str, reference_column: str) -> list[Example]:
    """All examples of one file."""
    rows = read_rows(path, prompt_column)
    # A dict keeps the order in which the columns first appear.
    columns = dict.fromkeys(column for _, row in rows for column in row)
    if reference_column not in columns and reference_column != REFERENCE:
        raise ValueError(no_column(str(path), reference_column, columns))
    others = [column for column in columns if column not in (prompt_column, reference_column)]
    return [_example(where, row, prompt_column, reference_column, others) for where, row in rows]


def _example(
    where: str, row: dict[str, Any], prompt_column: str, reference_column: str, others: list[str]
) -> Example:
    if prompt_column not in row:
        raise ValueError(no_column(where, prompt_column, row))
    columns = {column: row.get(column) for column in others}
    reference = row.get(reference_column)
    try:
        # A table cannot tell an empty cell from none, and nothing can be compared with either.
        example = Example(row[prompt_column], None if reference == "" else reference, columns)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if not example.prompt.strip():
        raise ValueError(
            f"{where}: the prompt is empty (column {prompt_column!r} holds {example.prompt!r}). "
            "Write a prompt or remove the row."
        )
    return example
