"""The statistics of the reward comparison, and that a killed one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import rewards, statistics, tasks
from comparison.run import Run
from comparison.statistics import (
    compare,
    iqm,
    iqm_interval,
    median_interval,
    noise_of,
    ratio_resamples,
    smoothed,
    tokens_to_reach,
)
from comparison.store import Store

TOKENS = np.arange(21) * 100.0


def test_a_side_that_learns_at_half_the_speed_needs_twice_the_tokens():
    compared = compare(TOKENS, 0.2 + TOKENS / 1000, 0.2 + TOKENS / 2000)
    # Delayed ends at 1.15 as the mean of its last three points, a gain of 0.95, of which 90% count.
    assert compared.target == pytest.approx(0.2 + 0.9 * 0.95)
    assert compared.delayed == pytest.approx(0.9 * 0.95 * 2000)
    assert compared.ratio == pytest.approx(2)


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_the_definition_is_the_same_if_both_change_places(share: float):
    fast, slow = 1 - np.exp(-TOKENS / 300), 0.8 - 0.8 * np.exp(-TOKENS / 900)
    forth = compare(TOKENS, fast, slow, share=share, noise=0.05)
    back = compare(TOKENS, slow, fast, share=share, noise=0.05)
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert forth.target == back.target
    assert forth.ratio > 1


def test_who_never_learned_is_counted_with_the_whole_budget():
    compared = compare(TOKENS, TOKENS / 1000, 0 * TOKENS, noise=0.5)
    assert compared.learned == (True, False)
    assert compared.target == 0.5
    assert compared.ratio == pytest.approx(2000 / 500)


def test_nobody_learned():
    assert compare(TOKENS, 0 * TOKENS, 0 * TOKENS, noise=0.1).learned == (False, False)


def test_tokens_to_reach_lies_between_points():
    curve = np.array([0, 0, 1, 0, 3.0])
    tokens = np.arange(5) * 10.0
    assert tokens_to_reach(tokens, curve, 0.5) == 15
    assert tokens_to_reach(tokens, curve, 2) == pytest.approx(30 + 10 * 2 / 3)
    assert tokens_to_reach(tokens, curve, 4) == np.inf


def test_nothing_is_learned_before_the_first_update():
    assert tokens_to_reach(np.arange(3) * 10.0, np.array([0, 8, 9.0]), 1) == 10


def test_smoothing_keeps_a_line_and_the_ends():
    np.testing.assert_allclose(smoothed(TOKENS), TOKENS)
    np.testing.assert_allclose(smoothed(np.array([3, 0, 0, 9.0])), [3, 1, 3, 9])


def test_noise_shrinks_with_the_seeds_and_leaves_out_the_start():
    generator = np.random.default_rng(0)
    few, many = (generator.normal(0, 1, (seeds, 500)) for seeds in (4, 64))
    assert noise_of(few, few) == pytest.approx(2 / np.sqrt(4), rel=0.05)
    assert noise_of(many, many) == pytest.approx(2 / np.sqrt(64), rel=0.05)
    few[:, 0] = 1_000 * np.arange(4)
    assert noise_of(few, few) == pytest.approx(1, rel=0.05)


def test_interquartile_mean_leaves_out_a_quarter_on_each_side():
    assert iqm(np.array([[-100.0, 1, 2, 100], [0, 1, 2, 3]])) == pytest.approx(1.5)


def test_an_interval_holds_the_statistic_and_has_no_width_without_a_spread():
    generator = np.random.default_rng(0)
    scores = generator.normal(1, 0.1, (8, 12))
    low, high = iqm_interval(scores, generator)
    assert low < iqm(scores) < high < low + 0.1
    same = np.tile(np.linspace(0, 1, 12), (8, 1))
    assert iqm_interval(same, generator) == pytest.approx((iqm(same), iqm(same)))


def test_resampled_ratios_hold_the_true_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    generator = np.random.default_rng(0)
    pair = [TOKENS / pace + generator.normal(0, 0.02, (5, 21)) for pace in (1000, 2000)]
    ratios = ratio_resamples(TOKENS, pair[0], pair[1], generator)
    low, high = median_interval([ratios] * 3, generator)
    assert low < 2 < high
    assert high - low < 0.4


RUN = Run(
    reward="sentiment",
    timing="delayed",
    seed=3,
    weight=1.25,
    gae_lambda=0.95,
    total_timesteps=2048,
    judges=("sentiment",),
)


def finished(run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row and a curve as a run gives them."""
    told = ("reward", "timing", "algorithm", "gae_lambda", "seed", "total_timesteps")
    row = {name: getattr(run, name) for name in told} | {"after: sentiment": 0.5, "kl": 1.0}
    return row, [{"tokens": 0, "score": 0.125}, {"tokens": 1024, "score": 0.5}]


def test_a_finished_run_is_there_when_the_store_is_opened_again(tmp_path: Path):
    path = tmp_path / "runs.csv"
    store = Store(path)
    assert not store.has(RUN)
    store.add(*finished(RUN))
    again = Store(path)
    assert again.has(RUN)
    np.testing.assert_allclose(again.curve("score", reward="sentiment"), [[0.125, 0.5]])
    assert again.column("after: sentiment", timing="delayed") == [0.5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.csv", "runs_curves.csv"]


@pytest.mark.parametrize("changed", [{"seed": 4}, {"gae_lambda": 1.0}, {"timing": "immediate"}])
def test_another_run_is_not_there(tmp_path: Path, changed: dict[str, Any]):
    store = Store(tmp_path / "runs.csv")
    store.add(*finished(RUN))
    assert not store.has(Run(**{**vars(RUN), **changed}))


def test_a_run_that_was_killed_between_the_files_is_done_again(tmp_path: Path):
    path = tmp_path / "runs.csv"
    Store(path).add(*finished(RUN))
    path.unlink()  # the curves were written, the run was not
    store = Store(path)
    assert not store.has(RUN)
    store.add(*finished(RUN))
    assert store.curve("score", reward="sentiment").shape == (1, 2)


def test_runs_with_other_settings_are_not_mixed(tmp_path: Path):
    store = Store(tmp_path / "runs.csv")
    for changed in ({}, {"seed": 4}, {"gae_lambda": 1.0}, {"total_timesteps": 4096}):
        store.add(*finished(Run(**{**vars(RUN), **changed})))
    store.only(2048, 4, {"delayed": 0.95})
    assert [row["seed"] for row in store.runs] == [3]
    assert len(store.curves) == 2


@pytest.mark.parametrize("name", tasks.NAMES)
def test_splits_of_a_task_have_no_prompt_in_common_and_all_have_references(name: str):
    task = tasks.make(name)
    prompts = [example.prompt for example in task.examples]
    assert len(set(prompts)) == len(prompts)
    assert all(example.reference for example in task.examples)
    assert all(task.splits.values())


def test_every_reward_of_the_table_is_known():
    from textgym.rewards import names

    assert {rewards.spec(name)["name"] for name in rewards.REWARDS} <= set(names())
