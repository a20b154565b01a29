"""Ratings on disk and texts in the queue."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.ratings import RatingStore, Submission


def test_rates_what_waits_and_writes_it_down(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ratings.jsonl"
    store = RatingStore(path)
    text = Submission("Once", "naïve\n<b>\u2028\ud800", "end")
    assert store.request([text, text]) == [None, None]
    assert store.counts() == {"waiting": 1, "rated": 0}
    assert store.rate({text.id: 0.5, "unknown": 1.0}) == 1
    assert store.request([text]) == [0.5]
    assert store.counts() == {"waiting": 0, "rated": 1}
    [line] = path.read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {**text._asdict(), "rating": 0.5}


def test_rated_once_is_never_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    text = Submission("Once", " upon a time")
    for _ in range(3):
        store = RatingStore(path)
        store.request([text])
        store.rate({text.id: 1.0})
        assert store.rate({text.id: -1.0}) == 0
        assert RatingStore(path).request([text]) == [1.0]
    assert len(path.read_text().splitlines()) == 1
    other = [text._replace(prompt="Twice"), text._replace(reference="end")]
    assert RatingStore(path).request(other) == [None, None]


def test_last_line_that_is_torn_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    store = RatingStore(path)
    texts = [Submission("Once", text) for text in "abc"]
    store.request(texts)
    store.rate({texts[0].id: 1, texts[1].id: 0})
    with path.open("a") as file:
        file.write('{"prompt": "Once", "te')
    store = RatingStore(path)
    assert store.request(texts) == [1, 0, None]
    store.rate({texts[2].id: -1})
    assert RatingStore(path).request(texts) == [1, 0, -1]


RATED = '{"prompt": "a", "text": "b", "rating": 1}'


@pytest.mark.parametrize(
    "content",
    [
        '{"my": "precious data"}',
        '{"my": "precious data"',
        "precious data",
        pytest.param("[" * 100_000, id="deep"),
        '{"prompt": "a", "completion": "b"}',
        '{"prompt": "a", "text": "b", "rating": "good"}',
        'precious data\n{"prompt": "a", "te',
        f"precious data\n{RATED}",
        f"{RATED}\nprecious data",
        f'{RATED}\n{{"my": "precious data"',
        f"{RATED}\n ",
    ],
)
def test_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"line [12] of .*notes.json is not a rating"):
        RatingStore(path)
    assert path.read_text() == content


@pytest.mark.parametrize("before", ["", f"{RATED}\n"])
def test_torn_line_is_known_wherever_it_was_torn(tmp_path: Path, before: str) -> None:
    path = tmp_path / "ratings.jsonl"
    store = RatingStore(path)
    text = Submission("Once", '}\n"')
    store.request([text])
    store.rate({text.id: 0.5})
    whole = path.read_text()
    for length in range(1, len(whole) - 1):
        path.write_text(before + whole[:length])
        assert RatingStore(path).request([text]) == [None]
        assert path.read_text() == before


def test_last_line_that_only_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text(RATED)
    store = RatingStore(path)
    assert path.read_text() == f"{RATED}\n"
    texts = [Submission("a", "b"), Submission("a", "c")]
    assert store.request(texts) == [1, None]
    store.rate({texts[1].id: -1})
    assert RatingStore(path).request(texts) == [1, -1]


@pytest.mark.parametrize("line", ["hello", "[1]", '{"prompt": "a", "text": "b"}', "", "NaN"])
def test_other_lines_must_be_ratings(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text(f"{RATED}\n{line}\n{RATED}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*ratings.jsonl is not a rating"):
        RatingStore(path)


def test_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ratings.jsonl"
    store = RatingStore(path)
    texts = [Submission("Once", text) for text in "ab"]
    store.request(texts)
    store.rate({texts[0].id: 1})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            store.rate({texts[1].id: 1})
    assert path.read_bytes() == before
    assert store.request(texts) == [1, None]
    assert store.rate({texts[1].id: 0}) == 1


def test_texts_of_one_prompt_come_together(tmp_path: Path) -> None:
    store = RatingStore(tmp_path / "ratings.jsonl")
    assert store.next() == []
    lone = [Submission(f"prompt {k}", "text") for k in range(3)]
    store.request(lone)
    assert store.next(2) == lone[:2]
    group = [Submission("prompt 0", f"text {k}") for k in range(5)]
    store.request(group)
    assert store.next(4) == [lone[0], *group[:3]]


def test_put_off_goes_to_the_end(tmp_path: Path) -> None:
    store = RatingStore(tmp_path / "ratings.jsonl")
    texts = [Submission(f"prompt {text}", text) for text in "abc"]
    store.request(texts)
    assert store.rate({texts[0].id: None, texts[1].id: 1.0, "unknown": None}) == 1
    assert store.next() == [texts[2], texts[0]]


def test_oldest_give_way(tmp_path: Path) -> None:
    store = RatingStore(tmp_path / "ratings.jsonl", max_waiting=2)
    texts = [Submission("Once", text) for text in "abc"]
    store.request(texts)
    assert store.next() == texts[1:]


def test_many_raters_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    store = RatingStore(path)
    texts = [Submission("Once", str(k)) for k in range(40)]
    store.request(texts)
    saved: list[int] = []

    def work(rating: float) -> None:
        saved.extend(store.rate({text.id: rating}) for text in texts)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(saved) == len(texts)
    assert store.request(texts) == RatingStore(path).request(texts)


@settings(max_examples=40)
@given(prompt=st.text(), text=st.text(), reference=st.none() | st.text())
def test_any_text_survives_the_journey(prompt: str, text: str, reference: str | None) -> None:
    sent = Submission(prompt, text, reference)
    assert Submission.from_json(json.loads(json.dumps(sent.to_json()))) == sent
    with TemporaryDirectory() as directory:
        store = RatingStore(Path(directory, "ratings.jsonl"))
        store.request([sent])
        assert store.rate({sent.id: 0.1}) == 1
        assert RatingStore(store.path).request([sent]) == [0.1]


def test_id_is_the_same_everywhere() -> None:
    assert Submission("Once", "é", None).id == "0c049421df9155de21d0e5b6fd7ea79b"
