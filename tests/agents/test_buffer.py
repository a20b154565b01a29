"""Each token is stored once, and comes back once, behind the text in which it was written."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictRolloutBuffer

from agents.buffer import Segment, TokenRolloutBuffer

CONTEXT = 12
SPACES = (
    gym.spaces.Dict(
        input_ids=gym.spaces.Box(0, 10, (CONTEXT,), np.int64),
        attention_mask=gym.spaces.Box(0, 1, (CONTEXT,), np.int8),
    ),
    gym.spaces.Discrete(11),
)

rollouts = given(
    seed=st.integers(0, 2**32 - 1),
    n_steps=st.integers(1, 20),
    n_envs=st.integers(1, 4),
    size=st.integers(1, 60),
)


@pytest.fixture(scope="module")
def make_buffer(fill):
    def make(seed, n_steps, n_envs):
        buffer = TokenRolloutBuffer(n_steps, *SPACES, n_envs=n_envs)
        return buffer, fill(buffer, seed, capacity=CONTEXT)

    return make


@rollouts
def test_segments_tell_the_text_before_each_token(make_buffer, seed, n_steps, n_envs, size):
    buffer, texts = make_buffer(seed, n_steps, n_envs)
    told = np.zeros((n_steps, n_envs), int)
    for segment in buffer.segments:
        written = buffer.actions[segment.begin : segment.end, segment.row].tolist()
        assert len(written) == segment.steps > 0
        assert segment.length == len(segment.context) + len(written) - 1 <= CONTEXT
        for index, step in enumerate(range(segment.begin, segment.end)):
            assert [*segment.context, *written[:index]] == texts[step][segment.row]
            told[step, segment.row] += 1
    assert (told == 1).all()


@rollouts
def test_mini_batches_hold_each_token_once(make_buffer, seed, n_steps, n_envs, size):
    buffer, _ = make_buffer(seed, n_steps, n_envs)
    count = max(round(n_steps * n_envs / size), 1)
    batches = [*buffer.mini_batches(count)]
    assert len(batches) == count
    told = np.zeros((n_steps, n_envs), int)
    for segment in (segment for batch in batches for segment in batch):
        told[segment.begin : segment.end, segment.row] += 1
    assert (told == 1).all()
    # No further from even shares than the longest segment, half of which may be at either end.
    longest = max(segment.steps for segment in buffer.segments)
    for batch in batches:
        tokens = sum(segment.steps for segment in batch)
        assert abs(tokens - n_steps * n_envs / count) <= longest
    assert [len(batch) for batch in buffer.mini_batches(1)] == [len(buffer.segments)]


def test_mini_batches_come_in_another_order_each_time(make_buffer):
    buffer, _ = make_buffer(0, 20, 4)
    np.random.seed(0)
    orders = {
        tuple(
            (segment.row, segment.begin) for batch in buffer.mini_batches(10) for segment in batch
        )
        for _ in range(5)
    }
    assert len(orders) == 5


@rollouts
def test_sequences_hold_each_token_behind_its_text(make_buffer, seed, n_steps, n_envs, size):
    buffer, texts = make_buffer(seed, n_steps, n_envs)
    places = []
    for batch in buffer.sequence_batches(buffer.segments, max_tokens=size):
        rows, columns = batch.input_ids.shape
        assert batch.input_ids.numel() <= size or rows == 1
        assert len(batch.places) == len(batch.tokens) == len(batch.predicted_at)
        assert batch.tokens.tolist() == buffer.actions.reshape(-1)[batch.places].tolist()
        for place, at in zip(batch.places.tolist(), batch.predicted_at.tolist(), strict=True):
            step, row = divmod(place, n_envs)
            sequence, last = divmod(at, columns)
            assert batch.input_ids[sequence, : last + 1].tolist() == texts[step][row]
        places += batch.places.tolist()
    assert sorted(places) == [*range(n_steps * n_envs)]


@rollouts
def test_sequences_of_about_the_same_length_stand_together(
    make_buffer, seed, n_steps, n_envs, size
):
    buffer, _ = make_buffer(seed, n_steps, n_envs)
    lengths = [
        batch.input_ids.shape for batch in buffer.sequence_batches(buffer.segments, max_tokens=size)
    ]
    assert [columns for _, columns in lengths] == sorted((c for _, c in lengths), reverse=True)
    assert sum(rows for rows, _ in lengths) == len(buffer.segments)


@rollouts
def test_advantages_and_returns_are_those_of_sb3(make_buffer, seed, n_steps, n_envs, size):
    buffer, _ = make_buffer(seed, n_steps, n_envs)
    stock = DictRolloutBuffer(n_steps, *SPACES, n_envs=n_envs, gamma=0.9, gae_lambda=0.7)
    buffer.gamma, buffer.gae_lambda = 0.9, 0.7
    for name in ("rewards", "values", "episode_starts"):
        setattr(stock, name, getattr(buffer, name).astype(np.float32))
    rng = np.random.default_rng(seed)
    last_values = rng.normal(size=n_envs).astype(np.float32)
    dones = rng.random(n_envs) < 0.5
    buffer.compute_returns_and_advantage(last_values, dones)
    stock.compute_returns_and_advantage(torch.from_numpy(last_values), dones)
    np.testing.assert_allclose(buffer.advantages, stock.advantages, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(buffer.returns, stock.returns, atol=1e-5, rtol=1e-5)


def test_a_token_takes_30_bytes_beside_its_prompt(make_buffer):
    buffer, _ = make_buffer(0, 16, 4)
    arrays = {id(x): x for x in vars(buffer).values() if isinstance(x, np.ndarray)}
    assert sum(x.nbytes for x in arrays.values()) == 30 * 16 * 4
    for segment in buffer.segments:
        assert segment.context.dtype == np.int32


def test_an_emptied_buffer_remembers_nothing(make_buffer):
    buffer, _ = make_buffer(0, 16, 4)
    assert buffer.full
    buffer.reset()
    assert not buffer.full
    assert not buffer.rewards.any()
    observations = {"input_ids": np.full((4, 12), 7), "attention_mask": np.eye(4, 12, dtype=int)}
    observations["attention_mask"][:, 0] = 1
    buffer.begin(np.arange(4), observations)
    buffer.pos, buffer.written[:3] = 3, True
    assert [(s.row, s.begin, s.end, s.context.tolist()) for s in buffer.segments] == [
        (0, 0, 3, [7]),
        (1, 0, 3, [7, 7]),
        (2, 0, 3, [7, 7]),
        (3, 0, 3, [7, 7]),
    ]


def test_a_text_that_only_begins_is_no_segment(make_buffer):
    """A callback may stop a rollout right after a text has begun."""
    buffer, _ = make_buffer(0, 16, 2)
    buffer.reset()
    observations = {"input_ids": np.full((2, 12), 7), "attention_mask": np.eye(2, 12, dtype=int)}
    observations["attention_mask"][:, 0] = 1
    buffer.begin(np.arange(2), observations)
    buffer.pos, buffer.written[:3] = 3, True
    buffer.begin(np.array([1]), observations)
    assert [(s.row, s.begin, s.end) for s in buffer.segments] == [(0, 0, 3), (1, 0, 3)]
    assert len([*buffer.sequence_batches(buffer.segments, max_tokens=64)]) == 1


def test_a_segment_that_is_longer_than_the_budget_stands_alone(make_buffer):
    buffer, _ = make_buffer(0, 16, 1)
    batches = [*buffer.sequence_batches(buffer.segments, max_tokens=1)]
    assert [len(batch.input_ids) for batch in batches] == [1] * len(buffer.segments)


def test_there_are_no_observations_to_get(make_buffer):
    buffer, _ = make_buffer(0, 2, 1)
    with pytest.raises(NotImplementedError, match="mini_batches"):
        buffer.get(2)


def test_a_segment_is_as_long_as_what_a_model_reads():
    segment = Segment(row=0, begin=2, end=5, context=np.array([4, 5], np.int32))
    assert (segment.length, segment.steps) == (4, 3)


@given(data=st.data())
def test_episodes_are_numbered_in_the_order_in_which_they_began(data):
    """Rows may be left out once they wrote enough, as where whole episodes are collected."""
    n_steps, n_envs = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    buffer = TokenRolloutBuffer(n_steps, *SPACES, n_envs=n_envs)
    written = [data.draw(st.integers(0, n_steps)) for _ in range(n_envs)]
    written[data.draw(st.integers(0, n_envs - 1))] = n_steps
    flags = st.lists(st.booleans(), min_size=n_envs, max_size=n_envs)
    starts = np.array([data.draw(flags) for _ in range(n_steps)])
    buffer.pos = n_steps
    buffer.episode_starts[:] = starts
    buffer.written[:] = np.arange(n_steps)[:, None] < written
    buffer.trim()
    expected, begun, current = np.full((n_steps, n_envs), -1), 0, [-1] * n_envs
    for step in range(n_steps):
        for row in range(n_envs):
            if step < written[row]:
                if step == 0 or starts[step, row]:
                    current[row], begun = begun, begun + 1
                expected[step, row] = current[row]
    np.testing.assert_array_equal(buffer.episodes, expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_steps=st.integers(1, 12),
    n_envs=st.integers(1, 4),
    size=st.integers(1, 40),
    left=st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
def test_rows_that_are_left_out_give_no_token(make_buffer, seed, n_steps, n_envs, size, left):
    """What was written, and no more, is in a segment, in one mini-batch, and at its own place."""
    buffer, _ = make_buffer(seed, n_steps, n_envs)
    wrote = [n_steps, *left][:n_envs]
    buffer.written[:] = np.arange(n_steps)[:, None] < wrote
    for row, last in enumerate(wrote):  # which begins nothing any more
        buffer._begun[row] = [begun for begun in buffer._begun[row] if begun[0] <= last]
    places = []
    for segments in filter(None, buffer.mini_batches(max(n_steps * n_envs // size, 1))):
        for batch in buffer.sequence_batches(segments, max_tokens=size):
            tokens, at = batch.tokens.tolist(), batch.places.tolist()
            for token, place in zip(tokens, at, strict=True):
                assert buffer.actions.ravel()[place] == token
            places += at
    assert sorted(places) == np.flatnonzero(buffer.written).tolist()
