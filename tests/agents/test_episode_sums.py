import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.episode_sums import EpisodeSums


@given(
    rows=st.integers(1, 4),
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    often=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_a_plain_loop(rows, lengths, often, seed):
    rng = np.random.default_rng(seed)
    sums = EpisodeSums(rows)
    texts = [{"reward": [], "kl": []} for _ in range(rows)]
    all_got, all_expected = [], []
    for steps in lengths:
        numbers = {name: rng.normal(size=(steps, rows)).astype("f4") for name in ("reward", "kl")}
        dones = rng.random((steps, rows)) < often
        all_got.append(sums.add(numbers, dones))
        expected = {"reward": [], "kl": []}
        for step in range(steps):
            for row, text in enumerate(texts):
                for name, so_far in text.items():
                    so_far.append(float(numbers[name][step, row]))
                    if dones[step, row]:
                        expected[name].append(sum(so_far))
                        so_far.clear()
        all_expected.append(expected)
    for got, expected in zip(all_got, all_expected, strict=True):  # none was changed afterwards
        assert got.keys() == expected.keys()
        for name, ended in got.items():
            assert ended.dtype == np.float64
            np.testing.assert_allclose(ended, expected[name], rtol=1e-12, atol=1e-12)


def test_an_episode_goes_on_in_the_next_rollout():
    sums = EpisodeSums(2)
    first = sums.add({"reward": np.float32([[1, 10], [2, 20]])}, np.array([[0, 0], [0, 1]], bool))
    second = sums.add({"reward": np.float32([[4, 40], [8, 80]])}, np.array([[1, 0], [1, 1]], bool))
    assert first["reward"].tolist() == [30]
    assert second["reward"].tolist() == [7, 8, 120]


def test_small_numbers_are_not_lost_in_a_large_sum():
    sums = EpisodeSums(1)
    steps = np.full((1000, 1), 0.25, np.float32)
    steps[0] = 2**24
    dones = np.zeros((1000, 1), bool)
    dones[-1] = True
    assert sums.add({"reward": steps}, dones)["reward"].tolist() == [2**24 + 999 / 4]
