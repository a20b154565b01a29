"""Rows of a text file, a table or JSON lines, each with the place where it stands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from textgym.registry import did_you_mean

Row: TypeAlias = tuple[str, dict[str, Any]]
"""Where a row stands (`"prompts.csv, line 3"`), and its values by column."""


def read_rows(
    path: Path,
    text_column: str | int,
    kinds: Sequence[str] = (".csv", ".jsonl", ".tsv", ".txt"),
    what: str = "prompt",
) -> list[Row]:
    """All rows of a file, at least one.

    Args:
        path: The file, in UTF-8.
        text_column: The column that a table must have, and what the lines of a .txt file are. A
            number, from 0, says that the table has no header: its columns are then called "0",
            "1" and so on.
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
    rows = list(_rows(path, text_column, what))
    if not rows:
        raise ValueError(f"{path} holds no {what}. Write at least one row.")
    return rows


def _rows(path: Path, text_column: str | int, what: str) -> Iterator[Row]:
    kind, text = path.suffix.lower(), _decode(path)
    if kind in _TABLES:
        yield from _table_rows(_TABLES[kind](path, text), text_column, what)
    elif isinstance(text_column, int):
        raise ValueError(
            f"{path}: {what}_column={text_column} is a number, which means a column of a table "
            "without a header (.csv, .tsv). Give the column's name."
        )
    elif kind == ".jsonl":
        yield from _jsonl_rows(path, text, text_column)
    else:
        yield from ((where, {text_column: line}) for where, line in _lines(path, text))


def _jsonl_rows(path: Path, text: str, text_column: str) -> Iterator[Row]:
    for where, line in _lines(path, text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON: {error.msg} at column {error.colno}.") from error
        except (RecursionError, ValueError) as error:  # too deep; a number of too many digits
            raise ValueError(f"{where}: JSON that cannot be read: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: expected a JSON object such as {{{json.dumps(text_column)}: ...}}, "
                f"got {line.strip()[:80]!r}. A .jsonl file has one object a line."
            )
        yield where, row


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """The lines of a text that are not blank, and where they stand."""
    # Lines as text files have them: str.splitlines would also cut at form feeds and U+2028.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.removesuffix("\n")


def _table_rows(
    records: Iterator[tuple[str, list[str]]], text_column: str | int, what: str
) -> Iterator[Row]:
    """The rows of a table, by the names in its header, or by number if it has none."""
    where, first = next(records, ("", []))
    if isinstance(text_column, int):
        header = [str(number) for number in range(len(first))]
        records = chain([(where, first)] if first else [], records)
        expected = f"the first row has {len(header)}"
    else:
        header = first
        expected = f"the header names {len(header)} columns: {', '.join(map(repr, header))}"
    if header:
        _check_header(where, header, str(text_column), what)
    for where, fields in records:
        if len(fields) != len(header):
            raise ValueError(
                f"{where}: {len(fields)} fields, but {expected}. Put a field that holds a comma "
                "in double quotes (.csv), or take out tabs inside a field (.tsv)."
            )
        yield where, dict(zip(header, fields, strict=True))


def _tsv_records(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """The records of a TSV file that are not blank lines, the header first."""
    for where, line in _lines(path, text):
        yield where, line.split("\t")


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file that are not blank lines, the header first."""
    # Strict, since a lenient reader takes all that follows an unclosed quote for one field.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            with _fields_of(len(text)):
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{_span(path, first, reader.line_num)}: not CSV: {error}. Put a field that holds "
                "a comma, a quote or a line break in double quotes, and double the quotes inside "
                'it: "He said ""no"", and".'
            ) from error
        if fields:
            yield _span(path, first, reader.line_num), fields


@contextmanager
def _fields_of(length: int) -> Iterator[None]:
    """Let fields be that long: the reader's own limit, of 131,072, holds for the process."""
    before = csv.field_size_limit(length + 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(where: str, header: list[str], text_column: str, what: str) -> None:
    if text_column not in header:
        raise ValueError(no_column(where, text_column, header, what))
    twice = [column for column in dict.fromkeys(header) if header.count(column) > 1]
    if twice:
        raise ValueError(f"{where}: the header names {twice} more than once. Rename one of them.")


def _span(path: Path, first: int, last: int) -> str:
    return f"{path}, line {first}" if first == last else f"{path}, lines {first} to {last}"


def no_column(where: str, column: str, found: Collection[str], what: str) -> str:
    """The message for a column that is not there, which was to hold `what`."""
    return (
        f"{where}: no column {column!r}; {did_you_mean(column, found)}. Rename the column, or say "
        f"which one to read with {what}_column."
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
    if "\0" in text:
        offset = data.index(0)
        raise ValueError(
            f"{path}, line {data.count(10, 0, offset) + 1}: byte 0x00 at offset {offset} of the "
            "file belongs to no text: it is UTF-16, or no text file. Save it as UTF-8."
        )
    return text.removeprefix("\ufeff")


_TABLES = {".csv": _csv_records, ".tsv": _tsv_records}
