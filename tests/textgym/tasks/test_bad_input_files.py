"""Whatever is in a file of prompts, it is read as it stands, or refused with its place."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textgym import TextGenEnv, tasks

TEXTS = {
    "family": "👨‍👩‍👧‍👦 and 👩🏽‍🚀",
    "flags": "🇩🇪🇫🇷🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "marks": "e\u0301\u0301\u0301 Z̷͓̈a̸l̵g̶o̴",
    "right to left": "שלום עולם مرحبا \u202eabc\u202c",
    "no spaces": "你好世界。",
    "no width": "\u200b",
    "line separators": "a\u2028b\x0cc",
    "controls": "\x01\x1b[31m\x7f",
}  # fmt: skip

REFUSED: list[tuple[str, str | bytes, str]] = [
    ("empty.txt", "", "holds no prompt"),
    ("blank.txt", "\n \n\t\r\n\u3000\n", "holds no prompt"),
    ("nul.txt", "one\na\0b\n", r"nul.txt, line 2: byte 0x00 at offset 5 .* UTF-16"),
    ("nul.csv", "prompt\na\0b\n", "line 2: byte 0x00"),
    ("utf16.txt", "abc\nde".encode("utf-16"), "line 1: byte 0xff .* not UTF-8"),
    ("utf16le.txt", "abc\nde\n".encode("utf-16-le"), "byte 0x00 .* UTF-16"),
    ("latin.txt", "a\ncafé".encode("latin1"), "line 2: byte 0xe9 .* Save the file as UTF-8"),
    ("cut.txt", "né".encode()[:2], "byte 0xc3"),
    ("header.csv", "prompt,reference\n", "holds no prompt"),
    ("typo.csv", "promt\na\n", "no column 'prompt'; did you mean 'promt'"),
    ("semicolons.csv", "prompt;reference\na;b\n", "no column 'prompt'"),
    ("twice.csv", "prompt,prompt\na,b\n", "more than once"),
    ("unclosed.csv", 'prompt\n"abc\ndef\n', "lines 2 to 3: not CSV"),
    ("ragged.csv", "prompt\na,b\n", "line 2: 2 fields"),
    ("spaces.csv", "prompt\n   \n", "line 2: the prompt is empty"),
    ("list.jsonl", '["a"]', "line 1: expected a JSON object"),
    ("array.jsonl", '[{"prompt": "a"},\n{"prompt": "b"}]', "line 1: not JSON"),
    ("two.jsonl", '{"prompt": "a"}{"prompt": "b"}', "line 1: not JSON: Extra data"),
    ("half.jsonl", '{"prompt": "a"', "line 1: not JSON"),
    ("number.jsonl", '{"prompt": 1}', "line 1: expected the prompt to be a string, got 1"),
    ("null.jsonl", '{"prompt": null}', "got None"),
    ("true.jsonl", '{"prompt": true}', "got True"),
    ("nested.jsonl", '{"prompt": {"a": 1}}', "expected the prompt to be a string"),
    ("words.jsonl", '{"prompt": ["a"]}', "expected a message"),
    ("reference.jsonl", '{"prompt": "a", "reference": 3}', "expected the reference"),
    ("half_pair.jsonl", r'{"prompt": "\ud800 x"}', "half a surrogate pair at index 0"),
    ("half_answer.jsonl", r'{"prompt": "x", "reference": "a\udc00"}', "half a surrogate pair"),
    ("half_message.jsonl", r'{"messages": [{"role": "user", "content": "\ud83d"}]}', "surrogate"),
    ("nobody.jsonl", '{"messages": []}', "at least one message"),
    ("deep.jsonl", '{"prompt": ' + "[" * 10**5 + "]" * 10**5 + "}", "line 1: JSON that cannot be"),
    ("digits.jsonl", '{"prompt": ' + "1" * 5000 + "}", "line 1: JSON that cannot be read"),
    ("data.json", "[]", "did you mean '.jsonl'"),
    ("prompts", "a", "ends in ''"),
]


def write(path: Path, data: str | bytes) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(("name", "data", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_files_are_refused_with_their_place(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(ValueError, match=message) as caught:
        tasks.make({"name": "file", "path": path})
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl"])
def test_prompts_of_all_scripts_come_as_they_stand(tmp_path: Path, kind: str, suffix: str) -> None:
    text, path = TEXTS[kind], tmp_path / f"prompts{suffix}"
    if suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([["prompt"], [text]])
    else:
        lines = {".txt": text, ".tsv": f"prompt\n{text}", ".jsonl": json.dumps({"prompt": text})}
        write(path, f"\ufeff{lines[suffix]}\r\n")
    env = TextGenEnv(task={"name": "file", "path": str(path)}, reward="length")
    _, info = env.reset(seed=0)
    assert info["prompt"] == text


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".txt", ".csv", ".tsv", ".jsonl"]))
    values = st.none() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=2))
    objects = st.dictionaries(st.sampled_from(["prompt", "reference", "messages", "x"]), values)
    lines = st.text(st.characters(codec="utf-8"), max_size=20) | objects.map(json.dumps)
    content = data.draw(st.binary(max_size=30) | st.lists(lines, max_size=4).map("\n".join))
    header = b"prompt\n" if suffix in (".csv", ".tsv") and data.draw(st.booleans()) else b""
    raw = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / f"any{suffix}"
    path.write_bytes(header + raw)
    try:
        task = tasks.make({"name": "file", "path": str(path)})
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  # that it may be refused is the point
        return
    assert all(example.prompt.strip() for example in task.examples)


def test_a_field_may_be_longer_than_the_readers_limit(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path / "long.csv", "prompt\n" + "a" * (limit + 1) + "\n")
    assert len(tasks.make({"name": "file", "path": path}).examples[0].prompt) == limit + 1
    assert csv.field_size_limit() == limit


def test_a_line_of_megabytes_is_cut_or_refused_in_seconds(tmp_path: Path) -> None:
    path = write(tmp_path / "long.txt", "so many words, " * 20_000)
    settings_: dict[str, Any] = {"task": {"name": "file", "path": path}, "reward": "length"}
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"prompt 0 of split 'train' has \d{5,} tokens.*'left'"):
        TextGenEnv(**settings_, context_length=64)
    env = TextGenEnv(**settings_, context_length=64, prompt_truncation="left")
    observation, _ = env.reset(seed=0)
    assert observation["attention_mask"].sum() == 32
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"validation_fraction": "x"}, "fractions to hold out must be from 0 .* 'x'"),
        ({"validation_fraction": float("nan")}, "fractions"),
        ({"test_fraction": True}, "fractions"),
        ({"test_fraction": None}, "fractions"),
        ({"seed": "x"}, "seed of what is held out is a whole number, got 'x'"),
        ({"seed": float("nan")}, "whole number, got nan"),
        ({"seed": True}, "whole number, got True"),
        ({"path": ""}, "is a directory"),
        ({"path": 3}, "path is the path of a file, got 3"),
        ({"path": None}, "path is the path of a file, got None"),
        ({"test": 3}, "path is the path of a file, got 3"),
        ({"validaton": "x.txt"}, "unexpected keyword argument 'validaton'"),
    ],
)
def test_parameters_are_refused(tmp_path: Path, given_: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "prompts.txt", "a\nb\nc\nd\n")
    with pytest.raises((ValueError, TypeError, IsADirectoryError), match=message):
        tasks.make({"name": "file", "path": path, **given_})


@pytest.mark.parametrize("lines", [["one"], ["a", "b"], ["same"] * 20])
def test_too_few_prompts_are_all_trained_on(tmp_path: Path, lines: list[str]) -> None:
    task = tasks.make({"name": "file", "path": write(tmp_path / "few.txt", "\n".join(lines))})
    assert len(task.split("train")) == len(lines)
    with pytest.raises(ValueError, match="no examples in split 'test'; it has 'train'"):
        task.split("test")


def test_columns_by_number_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", "a\tb\nc\td\n")
    for wrong in (True, 5, -1):
        with pytest.raises(ValueError, match="column"):
            tasks.make({"name": "rewrite", "path": path, "source_column": wrong,
                        "target_column": 0})  # fmt: skip
