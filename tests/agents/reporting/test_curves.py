"""Curves: means and their spread over runs, and which of them are drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.reporting.curves import REST, SCORE, Chart, charts, curve, points, thinned
from agents.reporting.groups import group
from agents.reporting.run import Run


def test_mean_smallest_and_largest_of_runs():
    found = curve([[(0, 1.0), (10, 3.0)], [(0, 3.0), (10, 7.0)]])
    assert found.timesteps == [0, 10]
    assert found.mean == [2.0, 5.0]
    assert found.low == [1.0, 3.0]
    assert found.high == [3.0, 7.0]
    assert found.runs == [2, 2]


def test_between_its_points_a_run_is_on_the_line_and_beyond_them_not_at_all():
    found = curve([[(0, 0.0), (10, 10.0)], [(4, 6.0)]])
    assert found.timesteps == [0, 4, 10]
    assert found.mean == [0.0, 5.0, 10.0]
    assert found.runs == [1, 2, 1]


def test_runs_that_logged_nothing_do_not_count():
    assert curve([[], [(1, 2.0)]]).mean == [2.0]
    assert curve([[]]).timesteps == []


numbers = st.floats(-1e6, 1e6)
run_points = st.dictionaries(st.integers(0, 50), numbers, min_size=1).map(
    lambda found: sorted(found.items())
)


@given(st.lists(run_points, min_size=1, max_size=4))
def test_the_mean_lies_in_the_band(runs):
    found = curve(runs)
    assert found.timesteps == sorted({x for each in runs for x, _ in each})
    for mean, low, high, number in zip(found.mean, found.low, found.high, found.runs, strict=True):
        assert 1 <= number <= len(runs)
        assert low - 1e-6 <= mean <= high + 1e-6


@given(run_points)
def test_one_run_is_its_own_curve(run):
    found = curve([run])
    assert found.timesteps == [x for x, _ in run]
    assert found.mean == pytest.approx([y for _, y in run])
    assert found.low == found.mean == found.high


def test_points_skip_what_is_not_a_number_and_take_the_last():
    rows = [
        {"time/total_timesteps": 1.0, "a": 1.0},
        {"time/total_timesteps": 2.0, "a": float("nan")},
        {"time/total_timesteps": 3.0},
        {"time/total_timesteps": 1.0, "a": 5.0},
    ]
    assert points(rows, Chart("a", "", "", "")) == [(1.0, 5.0)]
    assert points(rows, Chart("a", "", "", "", sign=-1.0)) == [(1.0, -5.0)]


def of_columns(command="train", **columns):
    rows = [
        {
            "time/total_timesteps": float(step),
            **{key: values[step] for key, values in columns.items()},
        }
        for step in range(2)
    ]
    return group([Run(Path("a"), "a", {"command": command}, "", progress=rows)])


def test_what_does_not_move_is_left_out_but_for_scores():
    groups = of_columns(
        **{
            "rollout/ep_rew_mean": [0.0, 0.0],
            "rewards/length/mean": [1.0, 1.0],
            "rewards/length/weight": [0.5, 0.5],
            "train/learning_rate": [1e-4, 1e-4],
            "objective/kl": [0.0, 1.0],
            "something/else": [1.0, 2.0],
            "something/constant": [1.0, 1.0],
        }
    )
    shown = {chart.column: chart.section for chart in charts(groups)}
    assert shown == {
        "rollout/ep_rew_mean": SCORE,
        "rewards/length/mean": SCORE,
        "objective/kl": "The policy",
        "something/else": REST,
    }


def test_the_loss_of_texts_is_for_supervised_learning():
    losses = {"train/loss": [2.0, 1.0], "validation/loss": [2.0, 1.5]}
    shown = charts(of_columns("sft", **losses))
    assert {chart.section for chart in shown} == {"Supervised learning"}
    assert {chart.section for chart in charts(of_columns(**losses))} == {REST}


def test_many_points_become_means_of_neighbours() -> None:
    of_run = [(float(x), float(x % 2)) for x in range(10)]
    assert thinned(of_run, 10) is of_run
    assert thinned(of_run, 5) == [(0.5, 0.5), (2.5, 0.5), (4.5, 0.5), (6.5, 0.5), (8.5, 0.5)]
    shown = thinned(of_run, 3)
    assert len(shown) == 3
    assert np.average([y for _, y in shown], weights=[4, 3, 3]) == pytest.approx(0.5)
