from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from textgym import dynamics

L = 12
PAD = 9


@given(data=st.data())
def test_contexts_are_what_was_written(data: st.DataObject) -> None:
    """Against lists of Python numbers: rows begin and grow in any order, alone and together."""
    n = data.draw(st.integers(1, 4))
    contexts = dynamics.empty(n, L, PAD)
    written: list[list[int]] = [[] for _ in range(n)]
    prompt_lengths = [0] * n
    some_rows = st.sets(st.integers(0, n - 1), min_size=1).map(sorted)
    for _ in range(data.draw(st.integers(0, 12))):
        rows = np.array(data.draw(some_rows))
        if data.draw(st.booleans()):
            prompts = [data.draw(st.lists(st.integers(0, 8), max_size=4)) for _ in rows]
            dynamics.begin(contexts, rows, [np.array(p, np.int64) for p in prompts])
            for row, prompt in zip(rows.tolist(), prompts, strict=True):
                written[row], prompt_lengths[row] = list(prompt), len(prompt)
        else:
            rows = np.array([row for row in rows.tolist() if len(written[row]) < L], np.intp)
            tokens = data.draw(st.lists(st.integers(0, 8), min_size=len(rows), max_size=len(rows)))
            dynamics.append(contexts, rows, np.array(tokens, np.int64))
            for row, token in zip(rows.tolist(), tokens, strict=True):
                written[row].append(token)
    observation = dynamics.observe(contexts)
    assert observation["input_ids"].tolist() == [ids + [PAD] * (L - len(ids)) for ids in written]
    assert observation["attention_mask"].tolist() == [
        [1] * len(ids) + [0] * (L - len(ids)) for ids in written
    ]
    for row, row_observation in enumerate(dynamics.observe_rows(contexts, np.arange(n))):
        prompt, completion = np.split(written[row], [prompt_lengths[row]])
        np.testing.assert_array_equal(dynamics.prompt_ids(contexts, row), prompt)
        np.testing.assert_array_equal(dynamics.completion_ids(contexts, row), completion)
        for key, array in row_observation.items():
            assert array.dtype == observation[key].dtype
            np.testing.assert_array_equal(array, observation[key][row])


def test_observations_are_copies() -> None:
    contexts = dynamics.empty(2, L, PAD)
    rows = np.arange(2)
    dynamics.begin(contexts, rows, [np.array([1, 2]), np.array([3])])
    first, (first_row,) = dynamics.observe(contexts), dynamics.observe_rows(contexts, rows[:1])
    for observation in (first, first_row):
        for array in observation.values():
            assert not np.shares_memory(array, contexts.input_ids)
            assert not np.shares_memory(array, contexts.attention_mask)
    dynamics.append(contexts, rows, np.array([4, 5]))
    assert first["input_ids"][:, 2].tolist() == [PAD, PAD]
    assert first_row["attention_mask"].sum() == 2


def test_an_index_for_all_rows_is_a_slice() -> None:
    values = np.array([10, 20, 30])
    for rows in ([0], [1, 2], [0, 1, 2], []):
        index = dynamics.index(np.array(rows, np.intp), 3)
        assert isinstance(index, slice) == (len(rows) == 3)
        assert values[index].tolist() == [values[row] for row in rows]
