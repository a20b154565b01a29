import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from agents.pretraining.corpus import (
    SourceFile,
    fingerprint,
    read_corpus,
    read_documents,
    split_documents,
)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_paragraphs_keep_their_lines_and_lose_their_margin(tmp_path: Path) -> None:
    text = "\n\nBer.\nWho's there?\n \t\nFran.  \nNay, answer me:\nstand.\n\n\n    A\n      B\n"
    expected = ["Ber.\nWho's there?", "Fran.\nNay, answer me:\nstand.", "A\n  B"]
    assert read_documents(write(tmp_path / "a.txt", text)) == expected
    windows_text = text.replace("\n", "\r\n").encode("utf-8-sig")
    assert read_documents(write(tmp_path / "b.md", windows_text)) == expected


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1))
def test_paragraphs_are_what_was_joined_by_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[str]
) -> None:
    path = write(tmp_path_factory.mktemp("corpus") / "a.txt", "\n\n".join(paragraphs))
    assert read_documents(path) == paragraphs


def test_json_records(tmp_path: Path) -> None:
    records = [
        "plain",
        {"text": "column", "prompt": "not this"},
        {"prompt": "How are you?", "response": "Well."},
        {"prompt": "Once upon", "reference": " a time"},
        {"prompt": "To be", "completion": "or not", "score": 3},
        {"text": "  \n"},
    ]
    expected = ["plain", "column", "How are you?\nWell.", "Once upon a time", "To be\nor not"]
    lines = "\n\n".join(json.dumps(record) for record in records)
    assert read_documents(write(tmp_path / "a.jsonl", lines)) == expected
    assert read_documents(write(tmp_path / "a.json", json.dumps(records, indent=2))) == expected


def test_conversations_are_one_document_with_a_line_a_turn(tmp_path: Path) -> None:
    text = (
        "categories:\n- x\nconversations:\n"
        "- - Are you well?\n  - Yes\n  - in what\n    year\n  - 1963\n- alone\n"
    )
    documents = read_documents(write(tmp_path / "a.yml", text))
    assert documents == ["Are you well?\nYes\nin what year\n1963", "alone"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntwo\xff\n", r"a\.txt, line 2: byte 0xff is not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n', r"a\.jsonl, line 3.*malformed JSON"),
        ("a.json", '[\n"a",\nb]', r"a\.json, line 3.*malformed JSON"),
        ("a.json", '{"text": "a"}', r"a\.json, line 1: expected a JSON array.*got dict"),
        ("a.jsonl", '"a"\n{"body": "b"}', r"a\.jsonl, line 2: expected.*\['body'\]"),
        ("a.jsonl", '{"prompt": "b", "response": 3}', r"line 1: expected"),
        ("a.jsonl", "7", r"line 1: expected.*got a int"),
        ("a.yml", "conversations:\n- - a\n - b\n", r"a\.yml, line 3: malformed YAML"),
        ("a.yml", "categories: [x]", r"a\.yml, line 1: expected a ChatterBot corpus"),
        ("a.yml", "conversations:\n- - a: b\n", r"conversation 1: expected a list of strings"),
        ("a.csv", "text\na\n", r"a\.csv: cannot read files that end in '\.csv'"),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_documents(write(tmp_path / name, content))


def test_directories_are_searched_and_listing_again_repeats(tmp_path: Path) -> None:
    write(tmp_path / "d" / "b.txt", "b")
    write(tmp_path / "d" / "sub" / "a.txt", "a")
    write(tmp_path / "d" / "notes.pdf", b"\xff")
    files = read_corpus([tmp_path / "d" / "sub" / "a.txt", tmp_path / "d", tmp_path / "d"])
    found = [(file.path.name, file.documents, file.repeats) for file in files]
    assert found == [("a.txt", ("a",), 3), ("b.txt", ("b",), 2)]


def test_missing_and_empty_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_corpus([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="empty"):
        read_corpus([write(tmp_path / "a.txt", " \n\n\t\n")])
    with pytest.raises(ValueError, match="no path at all"):
        read_corpus([])


@st.composite
def corpora(draw: st.DrawFn) -> list[SourceFile]:
    # Few distinct texts, so that copies fall on both sides of the split.
    texts = st.lists(st.integers(0, 400).map(str), min_size=2, max_size=200)
    contents = draw(st.lists(texts, min_size=1, max_size=4))
    return [
        SourceFile(Path(f"{i}.txt"), tuple(content), draw(st.integers(1, 3)))
        for i, content in enumerate(contents)
    ]


@given(corpora(), st.floats(0.01, 0.5), st.integers(0, 9))
def test_no_held_out_text_is_trained_on_and_none_is_lost(
    files: list[SourceFile], fraction: float, seed: int
) -> None:
    every_text = {text for file in files for text in file.documents}
    try:
        training, held_out = split_documents(files, fraction, seed)
    except ValueError:  # Every text to hold out is also a training text.
        reject()
    assert set(training).isdisjoint(held_out)
    assert set(training) | set(held_out) == every_text
    assert len(held_out) == len(set(held_out))
    assert split_documents(files, fraction, seed) == (training, held_out)


def test_repeats_apply_to_training_only_and_chunks_are_contiguous() -> None:
    numbers = [str(i) for i in range(1000)]
    once = SourceFile(Path("a.txt"), tuple(numbers[:600]), 1)
    thrice = SourceFile(Path("b.txt"), tuple(numbers[600:]), 3)
    training, held_out = split_documents([once, thrice], 0.1, seed=1)
    assert len(held_out) == len(set(held_out)) == 100
    for text in set(training):
        assert training.count(text) == (1 if int(text) < 600 else 3)
    indices = [int(text) for text in held_out]
    jumps = sum(after - before != 1 for before, after in itertools.pairwise(indices))
    assert jumps <= 1
    assert held_out != split_documents([once, thrice], 0.1, seed=2)[1]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_split_refuses_fractions_outside_0_and_1(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_documents([SourceFile(Path("a.txt"), ("a", "b"), 1)], fraction, 0)


def test_split_refuses_a_corpus_of_one_document() -> None:
    with pytest.raises(ValueError, match="1 documents leave 0 for training"):
        split_documents([SourceFile(Path("a.txt"), ("a",), 1)], 0.1, 0)


def test_fingerprint_follows_content_and_repeats_not_names() -> None:
    base = fingerprint([SourceFile(Path("a.txt"), ("x", "y"), 1)])
    assert fingerprint([SourceFile(Path("b.txt"), ("x", "y"), 1)]) == base
    assert fingerprint([SourceFile(Path("a.txt"), ("x", "z"), 1)]) != base
    assert fingerprint([SourceFile(Path("a.txt"), ("x", "y"), 2)]) != base
    assert fingerprint([SourceFile(Path("a.txt"), ("xy",), 1)]) != base
