"""Reading a corpus: files of several formats become documents, documents become two sets.

A document is what a model learns to begin and to end: a paragraph of a text, a record, or a
conversation. Formats by suffix: `.txt` and `.md` (paragraphs between blank lines), `.jsonl` and
`.json` (a record each), `.yml` and `.yaml` (ChatterBot conversations).
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HELD_OUT_CHUNK = 50
"""Documents that are held out together, in the order of the corpus. Neighbours are alike (an answer
and its variant, two halves of one speech), so single documents would leak into the held-out set."""

REFERENCE_COLUMNS = ("reference", "response", "completion")


@dataclass(frozen=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        path: Where it was read.
        documents: Its documents in order, none empty.
        repeats: How often it was listed: how often training sees each document in an epoch.
    """

    path: Path
    documents: tuple[str, ...]
    repeats: int


def read_corpus(paths: Sequence[Path]) -> list[SourceFile]:
    """Reads files, and directories recursively; a file listed more than once counts more often.

    Args:
        paths: Files and directories. In a directory, files of other formats are passed over.

    Returns:
        The files in the order in which they were first met, a directory's in the order of their
        names.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A file has an unknown suffix, cannot be read as its format says, or the whole
            corpus holds no document. The message names the file, and the line where there is one.
    """
    listed: dict[Path, int] = {}
    for path in paths:
        for file in _expand(Path(path)):
            listed[file] = listed.get(file, 0) + 1
    files = [SourceFile(file, tuple(read_documents(file)), n) for file, n in listed.items()]
    if not any(file.documents for file in files):
        names = ", ".join(str(path) for path in paths) or "no path at all"
        raise ValueError(
            f"The corpus is empty: {names} holds no document. "
            f"Give text files or directories with {', '.join(_READERS)} files."
        )
    return files


def read_documents(path: Path) -> list[str]:
    """Reads the documents of one file, stripped, empty ones left out.

    Raises:
        ValueError: The suffix is unknown or the content is not what the suffix says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: cannot read files that end in {path.suffix!r}. "
            f"Expected one of {', '.join(_READERS)}; convert or rename it."
        )
    documents = (document.strip("\n").rstrip() for document in reader(path, _read_text(path)))
    return [document for document in documents if document]


def split_documents(
    files: Sequence[SourceFile], held_out_fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """Splits a corpus by document into training and held-out sets.

    Contiguous chunks of documents, drawn at random, are held out. A held-out document whose very
    text is also in the training set is dropped, so everything left is text never trained on.
    Repeats apply to training only.

    Args:
        files: The corpus.
        held_out_fraction: Share of the documents to hold out, in (0, 1).
        seed: Same seed, same corpus, same split.

    Returns:
        `(training, held_out)` texts, each in the order of the corpus.

    Raises:
        ValueError: The fraction is out of range, or one of the two sets would be empty.
    """
    if not 0.0 < held_out_fraction < 1.0:
        raise ValueError(
            f"The held-out fraction is {held_out_fraction}; it must lie between 0 and 1, e.g. 0.03."
        )
    total = sum(len(file.documents) for file in files)
    wanted = max(1, round(total * held_out_fraction))
    chunk = min(HELD_OUT_CHUNK, wanted)
    chunks = -(-total // chunk)
    drawn = np.random.default_rng(seed).permutation(chunks)[: max(1, round(wanted / chunk))]
    is_held_out = np.isin(np.arange(total) // chunk, drawn)

    training: list[str] = []
    held_out: list[str] = []
    start = 0
    for file in files:
        flags = is_held_out[start : start + len(file.documents)]
        start += len(file.documents)
        kept = [text for text, out in zip(file.documents, flags, strict=True) if not out]
        training += kept * file.repeats
        held_out += [text for text, out in zip(file.documents, flags, strict=True) if out]
    seen = set(training)
    held_out = [text for text in dict.fromkeys(held_out) if text not in seen]
    if not training or not held_out:
        raise ValueError(
            f"{total} documents leave {len(training)} for training and {len(held_out)} to hold "
            f"out; both need at least one. Add text, change the held-out fraction "
            f"({held_out_fraction}) or the seed ({seed})."
        )
    return training, held_out


def fingerprint(files: Iterable[SourceFile]) -> str:
    """SHA-256 of the documents and repeats, whatever the files are called and wherever they lie."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps([file.repeats, file.documents]).encode())
    return digest.hexdigest()


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in _READERS
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Give a text file or a directory; "
            f"relative paths start at {Path.cwd()}."
        )
    return [path]


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8. "
            f"Convert the file first, e.g. iconv -f latin1 -t utf-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _paragraphs(path: Path, text: str) -> list[str]:
    # Line breaks inside a paragraph stay: in verse and in plays they are part of the text.
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line.rstrip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return [textwrap.dedent("\n".join(lines)) for lines in paragraphs]


def _json_lines(path: Path, text: str) -> list[str]:
    documents = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            documents.append(_record(place, _parse_json(path, line, first_line=number)))
    return documents


def _json_array(path: Path, text: str) -> list[str]:
    records = _parse_json(path, text, first_line=1)
    if not isinstance(records, list):
        raise ValueError(
            f"{path}, line 1: expected a JSON array of records, got {type(records).__name__}. "
            f"Put the records in an array, or one a line in a .jsonl file."
        )
    return [_record(f"{path}, record {i}", record) for i, record in enumerate(records, start=1)]


def _parse_json(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {first_line + error.lineno - 1}, column {error.colno}: malformed JSON "
            f"({error.msg}). Repair or remove it."
        ) from error


def _record(place: str, record: Any) -> str:
    """A string; a `text` column; or a prompt and what answers it, on a line of its own."""
    if isinstance(record, str):
        return record
    columns = record if isinstance(record, dict) else {}
    if isinstance(columns.get("text"), str):
        return str(columns["text"])
    answers = [columns[name] for name in REFERENCE_COLUMNS if name in columns]
    if isinstance(columns.get("prompt"), str) and answers and isinstance(answers[0], str):
        prompt, answer = str(columns["prompt"]), str(answers[0])
        joined_already = prompt[-1:].isspace() or answer[:1].isspace()
        return prompt + ("" if joined_already else "\n") + answer
    found = f"columns {sorted(columns)}" if columns else f"a {type(record).__name__}"
    raise ValueError(
        f"{place}: expected a string, a `text` column, or `prompt` with one of "
        f"{', '.join(REFERENCE_COLUMNS)} (all strings), got {found}. Rename the columns."
    )


def _conversations(path: Path, text: str) -> list[str]:
    try:
        # BaseLoader leaves every scalar a string: the answers `Yes` and `1963` stay what they are.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(
            f"{path}, line {line}: malformed YAML ({error.problem}). Repair or remove it."
        ) from error
    conversations = content.get("conversations") if isinstance(content, dict) else None
    if not isinstance(conversations, list):
        raise ValueError(
            f"{path}, line 1: expected a ChatterBot corpus, a mapping with a list called "
            f"`conversations`. Convert it, or give the text as a .txt file."
        )
    documents = []
    for i, conversation in enumerate(conversations, start=1):
        turns = [conversation] if isinstance(conversation, str) else conversation
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise ValueError(
                f"{path}, conversation {i}: expected a list of strings, one a turn, got "
                f"{turns!r}. Quote a turn that holds a colon."
            )
        documents.append("\n".join(" ".join(turn.split()) for turn in turns))
    return documents


_READERS: dict[str, Callable[[Path, str], list[str]]] = {
    ".txt": _paragraphs,
    ".md": _paragraphs,
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".yml": _conversations,
    ".yaml": _conversations,
}
