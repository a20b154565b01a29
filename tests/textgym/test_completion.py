from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import dynamics
from textgym.completion import Completions, Sample
from textgym.tasks import Example
from textgym.tokenizer import Tokenizer

BUDGET = 40


class Writer:
    """Completions that are written to by hand."""

    def __init__(self, tokenizer: Tokenizer, num_rows: int) -> None:
        self.contexts = dynamics.empty(num_rows, 10 + BUDGET, tokenizer.pad_token_id)
        self.completions = Completions(self.contexts, tokenizer, BUDGET)
        self._tokenizer = tokenizer

    def begin(self, row: int, example: Example) -> None:
        prompt_ids = np.array(self._tokenizer.encode(example.prompt), np.int64)
        dynamics.begin(self.contexts, np.array([row]), [prompt_ids])
        self.completions.begin(np.array([row]), [example])

    def write(self, row: int, token_id: int, *, last: bool = False) -> None:
        dynamics.append(self.contexts, np.array([row]), np.array([token_id]))
        self.completions.ended[row] = last


@pytest.fixture(scope="session")
def make_writer(byte_tokenizer: Tokenizer) -> Callable[[int], Writer]:
    return lambda num_rows: Writer(byte_tokenizer, num_rows)


def _byte_ids(text: str) -> list[int]:
    return [1 + byte for byte in text.encode()]


@given(
    data=st.binary(min_size=1, max_size=30), asked=st.sets(st.integers(0, 30)), eos=st.booleans()
)
def test_text_is_the_same_whenever_it_was_asked_for(
    make_writer: Callable[[int], Writer], data: bytes, asked: set[int], eos: bool
) -> None:
    """Row 0 is read now and then, row 1 only at the end."""
    writer = make_writer(2)
    ids = [1 + byte for byte in data] + [0] * eos
    for row in (0, 1):
        writer.begin(row, Example("p"))
    for t, token_id in enumerate(ids):
        for row in (0, 1):
            writer.write(row, token_id, last=t == len(ids) - 1)
        if t in asked:
            writer.completions.text(0)
    texts = [writer.completions.text(row) for row in (0, 0, 1)]
    assert texts == [data.decode("utf-8", "replace")] * 3
    assert "".join(writer.completions.pieces(0)) == texts[0]
    assert len(writer.completions.pieces(0)) == len(ids)


def test_half_a_character_is_held_back_until_the_end(
    make_writer: Callable[[int], Writer],
) -> None:
    writer = make_writer(1)
    writer.begin(0, Example("p"))
    assert (writer.completions.text(0), writer.completions.pieces(0)) == ("", [])
    ids = _byte_ids("a🙂")[:-1]
    for token_id in ids:
        writer.write(0, token_id)
    assert writer.completions.text(0) == "a"
    assert writer.completions.pieces(0) == ["a", "", "", ""]
    writer.completions.ended[0] = True  # as where the text was read before the end was known
    assert writer.completions.text(0) == "a\ufffd"
    assert writer.completions.pieces(0) == ["a", "", "", "\ufffd"]


def test_a_new_episode_forgets_the_last_one(make_writer: Callable[[int], Writer]) -> None:
    writer = make_writer(2)
    for row in (0, 1):
        writer.begin(row, Example("first"))
        for token_id in _byte_ids("old"):
            writer.write(row, token_id)
    completions = writer.completions
    assert [completions.text(row) for row in (0, 1)] == ["old", "old"]
    writer.begin(1, Example("second", "reference", {"level": 3}))
    assert [completions.text(row) for row in (0, 1)] == ["old", ""]
    assert completions.ended.tolist() == [False, False]
    writer.write(1, *_byte_ids("n"))
    assert completions.sample(1) == Sample("second", "n", "reference", _byte_ids("n"), {"level": 3})
    assert completions.sample(0) == Sample("first", "old", None, _byte_ids("old"), {})
    assert completions.samples(np.array([0, 1])) == [completions.sample(0), completions.sample(1)]


def test_lengths_and_token_ids(make_writer: Callable[[int], Writer]) -> None:
    writer = make_writer(3)
    for row in range(3):
        writer.begin(row, Example("x" * (row + 1)))
        for token_id in [*_byte_ids("ab"), 0][: row + 1]:
            writer.write(row, token_id)
    assert writer.completions.lengths(np.arange(3)).tolist() == [1, 2, 3]
    assert writer.completions.lengths(np.array([2])).tolist() == [3]
    assert writer.completions.token_ids(2).tolist() == [*_byte_ids("ab"), 0]


def test_a_row_that_never_began_has_ended(make_writer: Callable[[int], Writer]) -> None:
    writer = make_writer(2)
    writer.begin(1, Example("p"))
    assert writer.completions.ended.tolist() == [True, False]


def test_sample_of_the_first_characters_only(make_writer: Callable[[int], Writer]) -> None:
    writer = make_writer(1)
    writer.begin(0, Example("p"))
    for token_id in _byte_ids("a中b"):
        writer.write(0, token_id)
    for length, text, num_tokens in [(0, "", 0), (1, "a", 1), (2, "a中", 4), (3, "a中b", 5)]:
        sample = writer.completions.sample(0, length)
        assert (sample.text, len(sample.token_ids)) == (text, num_tokens)
