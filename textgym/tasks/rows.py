"""Rows of a text file, a table or JSON lines, each with the place where it stands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from textgym.registry import did_you_mean

Row: TypeAlias = tuple[str, dict[str, Any]]
"""Where a row stands (`"prompts.csv, line 3"`), and its values by column."""


def read_rows(
    path: Path,
    text_column: str,
    kinds: Sequence[str] = (".csv", ".jsonl", ".txt"),
    what: str = "prompt",
) -> list[Row]:
    """All rows of a file, at least one.

    Args:
        path: The file, in UTF-8.
        text_column: The column that a table must have, and what the lines of a .txt file are.
        kinds: The endings of files that will do.
        what: What a row holds, in one word, for error messages.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ValueError: If it is of another kind, holds no row, or is malformed (the message names the
            line).
    """
    path = path.expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory. Give the file of {what}s inside it.")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path} (looked for {path.absolute()}). Check the spelling and the "
            "working directory."
        )
    if path.suffix.lower() not in kinds:
        raise ValueError(
            f"{path}: cannot read {what}s from a file that ends in {path.suffix!r}; "
            f"{did_you_mean(path.suffix, kinds)}."
        )
    rows = list(_READERS[path.suffix.lower()](path, _decode(path), text_column))
    if not rows:
        raise ValueError(f"{path} holds no {what}. Write at least one row.")
    return rows


def _txt_rows(path: Path, text: str, text_column: str) -> Iterator[Row]:
    # Lines as text files have them: str.splitlines would also cut at form feeds and U+2028.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            yield f"{path}, line {number}", {text_column: line.removesuffix("\n")}


def _jsonl_rows(path: Path, text: str, text_column: str) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON: {error.msg} at column {error.colno}.") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: expected a JSON object such as {{{json.dumps(text_column)}: ...}}, "
                f"got {line.strip()[:80]!r}. A .jsonl file has one object a line."
            )
        yield where, row


def _csv_rows(path: Path, text: str, text_column: str) -> Iterator[Row]:
    records = _csv_records(path, text)
    where, header = next(records, ("", []))
    if header:
        _check_header(where, header, text_column)
    for where, fields in records:
        if len(fields) != len(header):
            raise ValueError(
                f"{where}: {len(fields)} fields, but the header names {len(header)} columns: "
                f"{', '.join(map(repr, header))}. Put a field that holds a comma in double quotes."
            )
        yield where, dict(zip(header, fields, strict=True))


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file that are not blank lines, the header first."""
    # Strict, since a lenient reader takes all that follows an unclosed quote for one field.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{_lines(path, first, reader.line_num)}: not CSV: {error}. Put a field that holds "
                "a comma, a quote or a line break in double quotes, and double the quotes inside "
                'it: "He said ""no"", and".'
            ) from error
        if fields:
            yield _lines(path, first, reader.line_num), fields


def _check_header(where: str, header: list[str], text_column: str) -> None:
    if text_column not in header:
        raise ValueError(no_column(where, text_column, header))
    twice = [column for column in dict.fromkeys(header) if header.count(column) > 1]
    if twice:
        raise ValueError(f"{where}: the header names {twice} more than once. Rename one of them.")


def _lines(path: Path, first: int, last: int) -> str:
    return f"{path}, line {first}" if first == last else f"{path}, lines {first} to {last}"


def no_column(where: str, column: str, found: Collection[str]) -> str:
    """The message for a column that is not there."""
    return (
        f"{where}: no column {column!r}; {did_you_mean(column, found)}. Rename the column, or say "
        "which one to read with prompt_column and reference_column."
    )


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte {data[error.start]:#04x} at offset {error.start} of the "
            "file is not UTF-8. Save the file as UTF-8."
        ) from error
    return text.removeprefix("\ufeff")


_READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".txt": _txt_rows}
