"""Tokens of many rows in one sequence are read as if each row were alone."""

import numpy as np
import pytest
import torch

from agents import reader
from agents.backbone import Backbone
from agents.reader import CachedReader, UncachedReader

CONTEXT = 40
VOCABULARY = 100
ROWS = 6


class Texts:
    """A cached reader of some rows, and what stands in them."""

    def __init__(self, backbone, seed=0):
        self.backbone = backbone
        self.reader = CachedReader(backbone, ROWS)
        self.rng = np.random.default_rng(seed)
        self.texts = [[]] * ROWS

    def begin(self, rows, lengths):
        """Rows in any order; what stands in their padding must not matter."""
        ids = self.rng.integers(VOCABULARY, size=(len(rows), CONTEXT))
        self.reader.begin(np.array(rows), ids, np.array(lengths))
        for row, text, length in zip(rows, ids.tolist(), lengths, strict=True):
            self.texts[row] = text[:length]

    def append(self):
        tokens = self.rng.integers(VOCABULARY, size=len(self.texts))
        self.reader.append(torch.from_numpy(tokens))
        self.texts = [[*text, int(new)] for text, new in zip(self.texts, tokens, strict=True)]

    def keep(self, rows):
        self.reader.keep(np.array(rows))
        self.texts = [self.texts[row] for row in rows]

    def assert_read(self):
        seen = self.reader.seen
        assert len(seen.logits) == len(self.texts)
        for row, text in enumerate(self.texts):
            alone = UncachedReader(self.backbone, 1)
            alone.begin(np.array([0]), np.array([text]), np.array([len(text)]))
            for got, expected in zip(seen, alone.seen, strict=True):
                assert expected.std() > 0.1
                torch.testing.assert_close(got[row], expected[0], atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(
    params=[
        ("gemma2", {}),  # soft caps, and a window of 4 in every other layer
        ("gemma2", {"num_key_value_heads": 4}),
        ("gpt2", {}),
        ("llama", {}),  # two heads share their keys
        ("llama", {"num_key_value_heads": 1}),
        ("mistral", {}),  # a window of 4
        ("opt", {}),
    ],
    ids=lambda param: "-".join(map(str, [param[0], *param[1].values()])),
)
def texts(request, make_family):
    family, overrides = request.param
    return Texts(Backbone(make_family(family, **overrides), VOCABULARY, CONTEXT))


def begin_all(texts):
    texts.begin([5, 0, 3, 1, 4, 2], [1, 30, 2, 17, 9, 4])


def test_ragged_prompts_are_read_as_if_alone(texts):
    begin_all(texts)
    texts.assert_read()


@pytest.mark.parametrize("length", [1, 3, 12])
def test_prompts_of_one_length_are_read_as_if_alone(texts, length):
    texts.begin([2, 0, 1, 5, 4, 3], [length] * ROWS)
    texts.assert_read()


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([4, 0, 2], [1, 33, 6]),
        ([0], [25]),
        ([5], [1]),
        ([5, 4, 3, 2, 1], [2, 2, 2, 2, 2]),
        ([3, 5, 4, 1, 0, 2], [35, 2, 7, 1, 1, 20]),
    ],
)
def test_some_begin_while_others_go_on(texts, rows, lengths):
    begin_all(texts)
    texts.append()
    texts.assert_read()
    texts.append()
    texts.begin(rows, lengths)  # not read in between: one pass for all
    texts.assert_read()
    texts.append()
    texts.append()  # without a look at what the first one gave
    texts.assert_read()


def test_the_last_beginning_counts(texts):
    begin_all(texts)
    texts.begin([3, 0], [11, 5])
    texts.assert_read()
    texts.append()
    texts.begin([1, 4], [8, 30])
    texts.begin([4, 2], [3, 3])
    texts.assert_read()
    texts.append()
    texts.assert_read()


def test_rows_are_kept_right_after_a_token(texts):
    begin_all(texts)
    texts.append()
    texts.keep([0, 2, 5])
    texts.assert_read()
    texts.append()
    texts.keep([1])
    texts.append()
    texts.assert_read()


def test_rows_are_kept_right_after_they_began(texts):
    begin_all(texts)
    texts.keep([1, 2, 4, 5])
    texts.assert_read()
    texts.append()
    texts.begin([3, 1], [2, 21])
    texts.keep([0, 1, 3])
    texts.assert_read()
    texts.append()
    texts.begin([2, 0], [14, 3])
    texts.assert_read()


@pytest.mark.parametrize("most", [1, 10, 21])
def test_portions_make_no_difference(texts, most, monkeypatch):
    monkeypatch.setattr(reader, "MAX_TOKENS", most)
    sizes = []

    def sizes_of(read):
        del sizes[:]
        handle = texts.backbone.model.get_input_embeddings().register_forward_pre_hook(
            lambda _, inputs: sizes.append(inputs[0].numel())
        )
        read()
        handle.remove()
        return sizes

    begin_all(texts)
    read = sizes_of(lambda: texts.reader.seen)
    assert len(read) > 2
    assert sum(read) == 1 + 30 + 2 + 17 + 9 + 4, "each token once"
    texts.assert_read()
    texts.append()
    texts.begin([4, 1], [20, 12])
    read = sizes_of(lambda: texts.reader.seen)
    assert len(read) == 2, "rows that go on are read with the first portion"
    assert sum(read) == 4 + 20 + 12
    texts.assert_read()
    texts.append()
    texts.assert_read()
