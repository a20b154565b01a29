"""The statistics of the reward comparison, and that a killed one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import analysis, base, notes, rewards, statistics, tasks
from comparison.analysis import gain, gain_error, learned_by, results, threshold, until_written
from comparison.report import report
from comparison.run import TIMINGS, Run
from comparison.statistics import (
    all_before,
    chance_of_order,
    compare,
    interval_over_rewards,
    iqm,
    iqm_interval,
    noise_of,
    resample,
    smoothed,
    tokens_to_reach,
)
from comparison.store import Store

TOKENS = np.arange(21) * 100.0


def test_a_side_that_learns_at_half_the_speed_needs_twice_the_tokens():
    race = compare(TOKENS, 0.2 + TOKENS / 1000, 0.2 + TOKENS / 2000).smaller
    # Delayed ends at 1.15 as the mean of its last three points, a gain of 0.95, of which 90% count.
    assert race.target == pytest.approx(0.2 + 0.9 * 0.95)
    assert race.delayed == pytest.approx(0.9 * 0.95 * 2000)
    assert race.ratio == pytest.approx(2)


def test_who_does_not_get_to_the_larger_gain_is_counted_with_the_whole_budget():
    race = compare(TOKENS, 0.2 + TOKENS / 1000, 0.2 + TOKENS / 2000).larger
    assert race.target == pytest.approx(0.2 + 0.9 * 1.9)
    assert race.immediate == pytest.approx(0.9 * 1.9 * 1000)
    assert race.delayed == 2000


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("level", [0.02, 0.8])
def test_the_definition_is_the_same_if_both_change_places(share: float, level: float):
    fast, slow = 1 - np.exp(-TOKENS / 300), level - level * np.exp(-TOKENS / 900)
    forth = compare(TOKENS, fast, slow, share=share, noise=0.05)
    back = compare(TOKENS, slow, fast, share=share, noise=0.05)
    for one, other in ((forth.smaller, back.smaller), (forth.larger, back.larger)):
        assert one.ratio == pytest.approx(1 / other.ratio)
        assert one.target == other.target
        assert one.ratio > 1
    assert forth.behind == (False, True)
    assert back.behind == (True, False)


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_who_never_learned_is_counted_with_the_whole_budget(noise: float):
    # Noise passes the other's noise level at once, but not most of what was learned.
    compared = compare(TOKENS, TOKENS / 1000, 0 * TOKENS, noise=noise)
    assert compared.learned == (True, False)
    assert compared.smaller == compared.larger
    assert compared.smaller.target == pytest.approx(0.9 * 1.9)
    assert compared.smaller.ratio == pytest.approx(2000 / (0.9 * 1.9 * 1000))


@pytest.mark.parametrize("shape", [TOKENS / 2000, 1 - np.exp(-TOKENS / 400)])
def test_without_a_difference_either_is_behind_in_a_quarter_to_a_third_of_cases(shape: np.ndarray):
    generator = np.random.default_rng(0)
    behind = []
    for _ in range(400):
        paces = np.exp(generator.normal(0, 0.15, (2, 3, 1)))
        curves = shape * paces + generator.normal(0, 0.2, (2, 3, len(TOKENS)))
        behind += compare(TOKENS, *curves.mean(1)).behind
    assert 0.2 < np.mean(behind) < 0.37


def test_equal_curves_are_not_behind_each_other():
    curve = np.random.default_rng(0).normal(TOKENS / 1000, 0.2)
    compared = compare(TOKENS, curve, curve)
    assert compared.behind == (False, False)
    assert compared.smaller.ratio == compared.larger.ratio == 1


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
    drawn = resample(TOKENS, pair[0], pair[1], generator)
    low, high = interval_over_rewards([drawn.smaller] * 3, np.median, generator)
    assert low < 2 < high
    assert high - low < 0.4
    assert drawn.delayed_behind.all()
    assert not drawn.immediate_behind.any()
    both = [drawn.delayed_behind, drawn.immediate_behind]
    assert interval_over_rewards(both, np.mean, generator) == (0, 1)  # which of them is drawn


@pytest.mark.parametrize("seeds", [2, 3])
def test_chance_of_order_is_how_often_it_happens_by_chance(seeds: int):
    generator = np.random.default_rng(0)
    pairs = generator.random((4_000, 2, seeds))
    happened = [all_before(a, b) or all_before(b, a) for a, b in pairs]
    assert np.mean(happened) == pytest.approx(chance_of_order(seeds), abs=0.03)


def test_who_never_arrives_is_not_before_anybody():
    never, late = np.array([1, np.inf]), np.array([2.0, 3])
    assert not all_before(never, late)
    assert not all_before(never, never)
    assert all_before(late, np.array([4, np.inf]))


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


def test_what_is_read_again_is_what_was_measured(tmp_path: Path):
    path = tmp_path / "runs.csv"
    row, curve = finished(RUN)
    row["kl"] = curve[0]["score"] = float(np.nextafter(1 / 3, 1))
    store = Store(path)
    store.add(row, curve)
    store.add_base([{"task": "sums", "measure": "length", "mean": 1 / 3, "std": 0.1, "count": 7}])
    again = Store(path)
    assert (again.runs, again.curves, again.base) == (store.runs, store.curves, store.base)


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


def test_every_known_reward_is_compared_or_said_to_be_left_out():
    assert notes.missing() == set()


@pytest.mark.parametrize("name", rewards.REWARDS)
def test_no_threshold_is_above_what_a_reward_can_give(tmp_path: Path, name: str):
    lowest, highest = base.score_range(name)
    store = Store(tmp_path / "runs.csv")
    for mean in (highest - 10 if np.isinf(lowest) else lowest, highest - 1e-3, highest):
        store.scales[name] = {"mean": mean, "std": 0.5}
        assert threshold(store, name) <= highest
        if mean < highest and rewards.REWARDS[name].threshold is None:
            assert mean < threshold(store, name) <= mean + 0.5


def test_the_unit_has_a_floor_where_the_range_has_a_width():
    assert base.unit("json_valid", 0.01) == 0.05
    assert base.unit("sentiment", 0.01) == 0.1
    assert base.unit("json_valid", 0.3) == 0.3
    assert base.unit("length", 0.01) == 0.01
    assert base.unit("length", 0.0) == 1


def test_tokens_are_written_when_the_rollout_before_has_ended():
    seconds = np.array([[2.0, 5, 9], [1, 2, 3]])
    np.testing.assert_array_equal(until_written(seconds), [[0, 2, 5], [0, 1, 2]])


PACES = {"sentiment": 2_000, "keywords": 4_000, "eos": 1_000}


def kept(tmp_path: Path, noise: float = 0.0, seeds: int = 3) -> Store:
    """A store in which immediate is twice as fast as delayed, and with its lambda 1.5 times."""
    store = Store(tmp_path / "runs.csv")
    generator = np.random.default_rng(0)
    measures = [f"before: {name}" for name in PACES] + ["length", "distinct_2"]
    store.add_base(
        {"task": "dialogue", "measure": measure, "mean": 0.25, "std": 0.5, "count": 400}
        for measure in measures
    )
    store.add_scales(
        {"reward": name, "task": "dialogue", "mean": 0.0, "std": 0.5, "weight": 1.0}
        for name in PACES
    )
    for name, pace in PACES.items():
        for timing, lam, slower in (
            ("immediate", 0.9, 1.0),
            ("immediate", 1.0, 4 / 3),
            ("delayed", 1.0, 2.0),
        ):
            for seed in range(seeds):
                scores = TOKENS / pace / slower + generator.normal(0, noise, len(TOKENS))
                row = {
                    "task": "dialogue",
                    "reward": name,
                    "timing": timing,
                    "seed": seed,
                    "algorithm": "TokenPPO",
                    "gae_lambda": lam,
                    "total_timesteps": 2048,
                    "kl": 1.0,
                    "length": 8.0,
                    "distinct_2": 0.5,
                    **{f"before: {judge}": 0.25 for judge in PACES},
                    **{f"after: {judge}": 0.75 + seed / 10 for judge in PACES},
                }
                points = zip(TOKENS, scores, strict=True)
                curve = [{"tokens": t, "seconds": t, "score": s, "kl": 1.0} for t, s in points]
                store.add(row, curve)
    return store


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 40)


@pytest.mark.usefixtures("few_resamples")
def test_a_verdict_needs_every_seed(tmp_path: Path):
    store = kept(tmp_path)
    store.only(2048, 3, {"immediate": 0.9, "delayed": 1.0})
    first = results(store, np.random.default_rng(0))[0]
    assert first.verdict == "immediate faster"
    # One slow seed of immediate leaves the interval of the mean above 1.
    slow = first.scores["immediate"].copy()
    slow[0] = first.scores["delayed"][0] * 0.99
    mixed = analysis.Result(**{**vars(first), "scores": {**first.scores, "immediate": slow}})
    assert mixed.interval[0] > 1
    assert mixed.verdict == "no clear difference"


@pytest.mark.usefixtures("few_resamples")
def test_the_control_is_shown_and_not_counted(tmp_path: Path):
    store = kept(tmp_path)
    store.only(2048, 3, {"immediate": 0.9, "delayed": 1.0})
    found = results(store, np.random.default_rng(0))
    assert {result.name for result in found} == set(PACES)
    assert {result.name for result in learned_by(found, "both")} == {"sentiment", "keywords"}


def test_gains_are_counted_from_the_base_models_many_texts(tmp_path: Path):
    store = kept(tmp_path)
    store.only(2048, 3, {"immediate": 0.9, "delayed": 1.0})
    gains = gain(store, "keywords", "delayed", "sentiment")
    np.testing.assert_allclose(gains, [1.0, 1.2, 1.4])
    error = gain_error(store, "keywords", "delayed", "sentiment")
    assert error == pytest.approx(np.sqrt(0.2**2 / 3 + 1 / 400))


def test_seeds_that_happen_to_agree_do_not_make_a_gain_certain(tmp_path: Path):
    store = kept(tmp_path)
    store.only(2048, 3, {"immediate": 0.9, "delayed": 1.0})
    for row in store.runs:
        row["after: sentiment"] = 0.75
    error = gain_error(store, "keywords", "delayed", "sentiment")
    assert error == pytest.approx(np.sqrt(1 / (3 * tasks.HELD_OUT_TEXTS) + 1 / 400))


def test_a_judge_that_was_changed_since_the_runs_is_named(tmp_path: Path):
    store = kept(tmp_path)
    assert analysis.changed_judges(store) == []
    store.base["dialogue", "before: keywords"]["mean"] = 0.75
    assert analysis.changed_judges(store) == ["keywords"]


@pytest.mark.usefixtures("few_resamples")
def test_the_report_has_both_targets_and_the_third_kind_of_run(tmp_path: Path):
    store = kept(tmp_path)
    other = Store(store.path)
    store.only(2048, 3, {"immediate": 0.9, "delayed": 1.0})
    other.only(2048, 3, dict.fromkeys(TIMINGS, 1.0))
    generator = np.random.default_rng(0)
    text = report(
        store=store,
        found=results(store, generator),
        other=(other, results(other, generator)),
        settings={"seeds": 3},
        lambdas={"immediate": 0.9, "delayed": 1.0},
        machine={},
        pilot_store=Store(tmp_path / "pilot.csv"),
        stem="runs",
        generator=generator,
    )
    assert "delayed needs 2.00 times as many tokens" in text
    # 90% of the larger gain is 90% of what three rollouts before the end have on average.
    assert f"**{2000 / (0.9 * 1900):.2f} times as many**" in text
    assert "delayed on 2 of these rewards, immediate on 0" in text
    assert "On **100%** of them" in text
    assert "is 2.00 with immediate's own lambda and **1.50 with the same lambda" in text
    assert "`eos` is paid with the last token whichever the timing, and has a ratio of 2.00" in text
    assert "| eos (control) |" in text
