"""Prompts from a user's own file: a line of text, a row of a table or a JSON object each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from textgym.tasks.base import Example, Task
from textgym.tasks.columns import PROMPT, REFERENCE, Columns
from textgym.tasks.default_reward import default_reward
from textgym.tasks.rows import read_rows
from textgym.tasks.splitting import check_fractions, hold_out

FilePath: TypeAlias = "str | PathLike[str]"


def file(
    path: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    prompt_column: str = PROMPT,
    reference_column: str = REFERENCE,
) -> Task:
    r"""Read prompts or conversations from a .txt, .csv, .tsv or .jsonl file.

    - `.txt`: one prompt a line, kept as it stands but for the line's end; blank lines are skipped.
    - `.csv`: a header, then one prompt a row, comma-separated as in RFC 4180: a field that holds a
      comma, a quote or a line break stands in double quotes. All values are strings.
    - `.tsv`: a header, then one prompt a line, its fields between tabs. Quotes are characters like
      any other, and no field holds a tab or a line break. All values are strings.
    - `.jsonl`: one JSON object a line. A column that only some lines have is None on the others.

    All are UTF-8, with or without a byte order mark. A reference that is absent, empty or null is
    None. Every column but the prompt and the reference goes to `Example.columns`, and from there
    to the reward.

    In a .jsonl file, a prompt may also be a conversation: a list of messages with a role
    ("system", "user" or "assistant") and a content, which chat models get through their chat
    template and other models as lines "User: ...", "Assistant: ...". A line without a column
    "prompt" that has a column "messages" is read so. If the last message is the assistant's, it is
    the reference and the model answers what stands before it; assistant messages further up are
    part of the prompt. Such files are what chat models are fine-tuned on:

        {"prompt": "Name a colour.", "reference": "Red."}
        {"prompt": [{"role": "user", "content": "Name a colour."}], "reference": "Red."}
        {"messages": [{"role": "system", "content": "Be brief."},
                      {"role": "user", "content": "Name a colour."},
                      {"role": "assistant", "content": "Red."}]}

    (each object on one line). A reference may be a list too, of one assistant message.

    A split without a file of its own is held out of `path`: its fraction of the different prompts,
    but at least one. Rows with the same prompt stay together, so that nothing is both trained and
    tested on. Which are held out depends on `seed` and the prompts alone, not on their order or
    the machine. A file with too few prompts to give each split one goes to training whole, and
    the task then has no such split: to score on the training prompts, say so by giving the same
    file twice.

    Reward, if you give none: "edit_distance" if every prompt of every split has a reference, from
    0 to 1 for the reference itself; otherwise "sentiment", which looks at no reference. Success is
    up to the reward.

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
    columns = Columns(prompt_column, reference_column)
    splits = read_splits(
        path,
        {"validation": validation, "test": test},
        {"validation": validation_fraction, "test": test_fraction},
        seed,
        lambda each: read_examples(each, columns),
    )
    return Task(Path(path).name, splits, default_reward(splits))


def read_splits(
    path: FilePath,
    own_files: Mapping[str, FilePath | None],
    fractions: Mapping[str, float],
    seed: int,
    read: Callable[[Path], Sequence[Example]],
) -> dict[str, tuple[Example, ...]]:
    """The splits of a task that reads files: those without a file of their own are held out.

    Args:
        path: The file to train on.
        own_files: The file of each other split, None to hold it out of `path`.
        fractions: The share to hold out for each split that has no file.
        seed: Chooses what is held out; see `textgym.tasks.splitting.hold_out`.
        read: Reads the examples of a file.
    """
    held_out = {split: f for split, f in fractions.items() if own_files[split] is None}
    check_fractions(held_out)
    splits = hold_out(read(_as_path(path)), held_out, seed)
    for split, own_file in own_files.items():
        if own_file is not None:
            splits[split] = tuple(read(_as_path(own_file)))
    return splits


def _as_path(given: FilePath) -> Path:
    if not isinstance(given, (str, PathLike)):
        raise TypeError(f"path is the path of a file, got {given!r}.")
    return Path(given)


def read_examples(
    path: Path,
    columns: Columns,
    kinds: Sequence[str] = (".csv", ".jsonl", ".tsv", ".txt"),
    *,
    header: bool = True,
) -> list[Example]:
    """All examples of one file.

    Args:
        path: The file; see `textgym.tasks.rows.read_rows`.
        columns: What its columns are.
        kinds: The endings of files that will do.
        header: Whether tables name their columns. Without, `columns` has their numbers, from "0".
    """
    text_column = columns.prompt if header else int(columns.prompt)
    rows = read_rows(path, text_column, kinds, columns.called[0])
    # A dict keeps the order in which the columns first appear.
    found = dict.fromkeys(column for _, row in rows for column in row)
    columns.check_reference(str(path), found)
    return [columns.example(where, row, found) for where, row in rows]
