"""A state must be no more than a faster way to the same numbers."""

import numpy as np
import pytest
import torch

from agents import seen
from agents.backbone import Backbone
from agents.reader import UncachedReader, best_reader
from agents.recurrent_reader import RecurrentReader
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score

CONTEXT = 20
VOCABULARY = 60


class Play:
    """Two readers do the same; their rows do as chance wants."""

    def __init__(self, backbone, seed, num_rows=5):
        self.rng = np.random.default_rng(seed)
        self.readers = [cls(backbone, num_rows) for cls in (RecurrentReader, UncachedReader)]
        self.lengths = np.zeros(num_rows, np.int64)
        self.restarts = 0

    def begin(self, rows):
        lengths = self.rng.choice([1, 2, *range(3, CONTEXT), CONTEXT], size=len(rows))
        ids = self.rng.integers(VOCABULARY, size=(len(rows), CONTEXT))
        for reader in self.readers:
            reader.begin(rows, ids, lengths)
        self.lengths[rows] = lengths
        self.restarts += len(rows)

    def step(self):
        """Begin the rows that are full and some others anew, and write a token in every row."""
        anew = (self.lengths == CONTEXT) | (self.rng.random(len(self.lengths)) < 0.1)
        while anew.any():
            self.begin(anew.nonzero()[0])
            anew = self.lengths == CONTEXT
        tokens = torch.from_numpy(self.rng.integers(VOCABULARY, size=len(self.lengths)))
        for reader in self.readers:
            reader.append(tokens)
        self.lengths += 1
        self.assert_alike()

    def keep(self, rows):
        for reader in self.readers:
            reader.keep(rows)
        self.lengths = self.lengths[rows]
        self.assert_alike()

    def assert_alike(self):
        got, expected = (reader.seen for reader in self.readers)
        assert expected.logits.std() > 0.3
        torch.testing.assert_close(got.hidden, expected.hidden, atol=1e-6, rtol=0)
        torch.testing.assert_close(got.logits, expected.logits, atol=5e-6, rtol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(2))
def test_cached_is_uncached_all_through_long_play(kind, layers, seed, make_network):
    backbone = Backbone(make_network(kind, layers), VOCABULARY, CONTEXT)
    play = Play(backbone, seed)
    play.begin(np.arange(5))
    play.assert_alike()
    for _ in range(40):
        play.step()
    play.keep(np.array([0, 2, 3]))
    for _ in range(20):
        play.step()
    play.keep(np.array([1]))
    for _ in range(5):
        play.step()
    assert play.restarts > 15


@torch.inference_mode()
def test_prompts_too_many_for_one_pass_are_read_in_several(kind, make_network, monkeypatch):
    monkeypatch.setattr(seen, "MAX_TOKENS", 2 * CONTEXT)
    monkeypatch.setattr("agents.recurrent_reader.MAX_TOKENS", 2 * CONTEXT)
    play = Play(Backbone(make_network(kind), VOCABULARY, CONTEXT), 0, num_rows=7)
    play.begin(np.arange(7))
    play.assert_alike()
    play.begin(np.array([1, 3, 4, 6]))
    play.assert_alike()


@torch.no_grad()
def test_the_last_row_can_be_left_out(make_network):
    reader = RecurrentReader(Backbone(make_network("lstm", 2), VOCABULARY, CONTEXT), 2)
    reader.begin(np.arange(2), np.ones((2, CONTEXT), np.int64), np.array([3, 5]))
    reader.keep(np.array([], np.intp))
    assert reader.seen.logits.shape == (0, VOCABULARY)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_taken_for_such_models(kind, layers, dtype, make_network):
    backbone = Backbone(make_network(kind, layers), VOCABULARY, CONTEXT, dtype=dtype)
    assert best_reader(backbone) is RecurrentReader


def test_it_is_taken_only_if_it_reads_the_same(make_network, monkeypatch):
    monkeypatch.setattr(RecurrentReader, "append", lambda self, tokens: None)
    backbone = Backbone(make_network("gru"), VOCABULARY, CONTEXT)
    with pytest.warns(UserWarning, match="it gives other logits with its own state. Results are"):
        assert best_reader(backbone) is UncachedReader


@torch.inference_mode()
def test_bfloat16_rounds_and_does_no_more(kind, layers, make_network):
    network = make_network(kind, layers)
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(4, CONTEXT))
    lengths = np.array([2, 9, 1, 5])
    readings = {}
    for dtype in ("float32", "bfloat16"):
        backbone = Backbone(network, VOCABULARY, CONTEXT, dtype=dtype)
        for cls in (RecurrentReader, UncachedReader):
            reader = cls(backbone, 4)
            reader.begin(np.arange(4), ids, lengths)
            for step in range(6):
                reader.append(torch.from_numpy(ids[:, step]))
            readings[dtype, cls] = reader.seen
            assert {part.dtype for part in reader.seen} == {torch.float32}
    exact = readings["float32", UncachedReader].hidden
    rounded = readings["bfloat16", RecurrentReader].hidden
    assert 1e-4 < (rounded - exact).abs().max() < 0.1
    gap = (rounded - readings["bfloat16", UncachedReader].hidden).abs().max()
    assert gap < 0.05


def test_a_text_read_once_is_a_text_read_token_by_token(kind, layers, make_network):
    backbone = Backbone(make_network(kind, layers), VOCABULARY, CONTEXT)
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(3, CONTEXT))
    texts = torch.from_numpy(ids)
    at = torch.cat([row * CONTEXT + torch.arange(2, CONTEXT - 1) for row in range(3)])
    batch = SequenceBatch(texts, at, texts.flatten()[at + 1], at.numpy())
    with torch.no_grad():
        hidden, log_probs, _ = score(backbone, Sampling(temperature=0.7), batch, 10**6)
        reader = RecurrentReader(backbone, 3)
        reader.begin(np.arange(3), ids, np.full(3, 3))
        for index, place in enumerate(range(2, CONTEXT - 1)):
            these = torch.arange(3) * (CONTEXT - 3) + index
            torch.testing.assert_close(hidden[these], reader.seen.hidden, atol=1e-6, rtol=0)
            expected = (reader.seen.logits / 0.7).log_softmax(-1)
            expected = expected.gather(1, texts[:, place + 1, None])[:, 0]
            torch.testing.assert_close(log_probs[these], expected, atol=5e-6, rtol=1e-6)
            reader.append(texts[:, place + 1])
