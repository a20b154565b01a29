"""How learning curves of algorithms are put together, compared and told."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning import arms, report
from learning.curves import Curves, curves, kl_at, race, to_reach
from learning.judge import Judge
from learning.parts import PARTS, pilot
from learning.records import Records
from learning.run import train
from learning.trial import Point, Trial, settings

from agents.algorithms.by_name import ALGORITHMS

TRIAL = Trial("part", "arm", 0, 100, settings(algo="ppo"), points=4)


def points(scores: list[float], tokens: list[int] | None = None) -> list[Point]:
    """A run that takes a second a token."""
    places = tokens or [0, 25, 50, 75, 100]
    return [
        Point(t, float(t), 2.0 * t, s, std=0.1, texts=320, kl=s, length=30.0, trained=s)
        for t, s in zip(places, scores, strict=True)
    ]


def arm(tmp_path: Path, name: str, *runs: list[Point]) -> Curves:
    """The curves of some runs, as they are read from a file."""
    trials = [Trial("part", name, seed, 100, "{}", points=4) for seed in range(len(runs))]
    records = Records(tmp_path / f"{name}.csv")
    for trial, run in zip(trials, runs, strict=True):
        records.add(trial, run)
    again = Records(tmp_path / f"{name}.csv")
    return curves(name, [again.points(trial) for trial in trials])


def test_a_finished_run_is_there_again_and_another_is_not(tmp_path: Path):
    records = Records(tmp_path / "runs.csv")
    records.add(TRIAL, points([0.0, 0.1, 0.2, 0.3, 0.4]))
    again = Records(tmp_path / "runs.csv")
    assert again.has(TRIAL)
    assert again.points(TRIAL) == records.points(TRIAL)
    changed: list[dict[str, Any]] = [
        {"seed": 1},
        {"settings": settings(algo="a2c")},
        {"greedy": True},
        {"trainer": "trl"},
    ]
    assert not any(again.has(Trial(**{**vars(TRIAL), **change})) for change in changed)


def test_runs_that_are_judged_at_different_tokens_meet_on_a_grid(tmp_path: Path):
    straight = [0.0, 0.25, 0.5, 0.75, 1.0]
    late = points([0.0, 0.3, 0.6, 0.8, 1.1], [0, 30, 60, 80, 110])
    found = arm(tmp_path, "arm", points(straight), late)
    np.testing.assert_allclose(found.scores, [straight, straight], atol=1e-12)
    np.testing.assert_allclose(found.cost("wall")[1], [0, 50, 100, 150, 200])
    assert found.mean("tokens") == 105


def test_seconds_to_a_score_are_those_of_its_tokens(tmp_path: Path):
    found = arm(tmp_path, "arm", points([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert to_reach(found, 0.6, "tokens") == pytest.approx(60)
    assert to_reach(found, 0.6, "wall") == pytest.approx(120)
    assert to_reach(found, 1.5, "wall") == float("inf")


def test_who_learns_at_half_the_speed_takes_twice_as_long(tmp_path: Path):
    fast = arm(tmp_path, "fast", *[points([0.0, 0.25, 0.5, 0.75, 1.0])] * 2)
    slow = arm(tmp_path, "slow", *[points([0.0, 0.125, 0.25, 0.375, 0.5])] * 2)
    found = race(fast, slow, "tokens", np.random.default_rng(0))
    assert found is not None
    assert found.ratio == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2, 2))
    assert found.late == (False, False)


def test_the_race_with_trl_says_how_far_both_are_from_the_base_model(tmp_path: Path):
    ours = arm(tmp_path, "ours", *[points([0.0, 0.25, 0.5, 0.75, 1.0])] * 2)
    theirs = arm(tmp_path, arms.TRL.name, *[points([0.0, 0.125, 0.25, 0.375, 0.5])] * 2)
    assert kl_at(ours, 0.5) == pytest.approx(0.5)
    assert np.isnan(kl_at(theirs, 0.9))
    text = report.against_trl([theirs, ours], "title", np.random.default_rng(0))
    line = next(line for line in text if line.startswith("| ours | TRL's GRPO"))
    assert line.count(" 2.00 |") == 2
    assert "0.3 against 0.3" in line


def test_who_has_not_learned_is_counted_with_all_it_had(tmp_path: Path):
    fast = arm(tmp_path, "fast", *[points([0.0, 0.25, 0.5, 0.75, 1.0])] * 2)
    flat = arm(
        tmp_path, "flat", points([0.0, 0.1, -0.1, 0.1, 0.0]), points([0.0, -0.1, 0.1, -0.1, 0.0])
    )
    found = race(fast, flat, "tokens", np.random.default_rng(0))
    assert found is not None
    assert found.late == (False, True)
    assert found.second == 100
    assert str(found).startswith("≥")
    assert race(flat, fast, "tokens", np.random.default_rng(0)) is None


def test_an_interval_is_no_narrower_than_the_texts_make_it(tmp_path: Path):
    same = arm(tmp_path, "same", *[points([0.0, 0.1, 0.2, 0.3, 0.4])] * 3)
    assert same.final() == pytest.approx((0.4, 1.96 * 0.1 / np.sqrt(320 * 3)))
    runs = [points([0.0, 0.1, 0.2, 0.3, last]) for last in (0.3, 0.5)]
    apart = arm(tmp_path, "apart", *runs)
    assert apart.final() == pytest.approx((0.4, 1.96 * np.sqrt(0.02 / 2)))


@pytest.mark.parametrize("part", PARTS.values(), ids=str)
def test_every_run_has_settings_that_its_algorithm_takes(part: Any):
    trials = part.trials(seeds=2)
    assert len(set(trials)) == len(trials)
    for trial in trials:
        assert trial.config.algorithm_kwargs()["learning_rate"] > 0


def test_a_run_with_another_default_is_another_run(monkeypatch: pytest.MonkeyPatch):
    arm = next(arm for arm in arms.ALGORITHMS if arm.rate is None)
    before = arm.trial("part", 0, None, budget=100)
    named = ALGORITHMS[before.config.algo]
    changed = replace(named, defaults={**named.defaults, "learning_rate": 0.5})
    monkeypatch.setitem(ALGORITHMS, before.config.algo, changed)
    after = arm.trial("part", 0, None, budget=100)
    assert after != before
    assert after.config.learning_rate == 0.5


def test_every_algorithm_is_compared_somewhere():
    compared = {trial.config.algo for part in PARTS.values() for trial in part.trials(1)}
    assert compared == set(ALGORITHMS) - {"sb3-dqn"}


def test_the_pilot_tries_as_many_rates_for_each_arm_on_prompts_and_seeds_of_its_own():
    trials = pilot()
    tried = Counter(trial.arm for trial in trials)
    assert set(tried.values()) == {3}
    assert len(tried) == len(arms.ALGORITHMS) + len(arms.VOCABULARY) + 1
    assert {trial.split for trial in trials} == {"validation"}
    others = {trial.seed for part in PARTS.values() for trial in part.trials(100)}
    assert arms.PILOT_SEED not in others


def test_the_pilot_leaves_out_rates_that_tear_the_model_apart():
    ended = {
        1e-5: {"score": 0.1, "kl": 0.2},
        1e-4: {"score": 0.3, "kl": 4.0},
        1e-3: {"score": 0.9, "kl": 70.0},
    }
    assert report.best_rate(ended) == 1e-4
    assert report.best_rate({1e-3: ended[1e-3]}) is None
    greedy = {rate: {**row, "kl": float("nan")} for rate, row in ended.items()}
    assert report.best_rate(greedy) == 1e-3  # there is no KL to go by


def test_the_table_has_a_target_between_the_base_model_and_the_best(tmp_path: Path):
    part = PARTS["vocabulary"]
    found = [
        arm(tmp_path, name, *[points([0.0, 0.1, 0.2, 0.3, last])] * 2)
        for name, last in (("dqn", 0.4), ("ppo", 0.2), ("reinforce", 0.1))
    ]
    rows = report.table(part, found)
    assert {row["target"] for row in rows} == {0.2}
    assert rows[0]["tokens_to_target"] == pytest.approx(50)
    text = "\n".join(report.described(part, found, "stem"))
    assert "| dqn |" in text
    assert "stem_vocabulary.png" in text


SMALL = {
    "task": "continuation",
    "reward": "sentiment",
    "max_new_tokens": 4,
    "n_envs": 8,
    "learning_rate": 1e-2,
}


def small(trainer: Any, **given: Any) -> list[Point]:
    told = {"points": 2, "texts_at_ends": 6, "texts_between": 3, "trainer": trainer}
    return train(Trial("part", "arm", 0, 64, settings(**SMALL, **given), **told))


def test_a_run_is_judged_before_on_the_way_and_after(monkeypatch: pytest.MonkeyPatch):
    judge = Judge.__call__

    def dawdle(*arguments: Any) -> Any:
        time.sleep(1)
        return judge(*arguments)

    monkeypatch.setattr(Judge, "__call__", dawdle)
    began = time.perf_counter()
    found = small("textgym", algo="ppo", n_steps=4, batch_size=32)
    assert found[-1].wall + 3 < time.perf_counter() - began  # three looks, none of them counted
    assert [point.tokens for point in found] == [0, 32, 64]
    assert [point.texts for point in found] == [6, 3, 6]
    assert found[0].kl == pytest.approx(0, abs=1e-4)
    assert found[-1].kl > 0.01
    assert np.isnan(found[0].trained)
    assert np.isfinite(found[-1].trained)
    assert found[0].wall < found[1].wall < found[2].wall


def test_trl_begins_with_the_same_model_and_learns(recwarn: pytest.WarningsRecorder):
    pytest.importorskip("trl")
    grpo = {"algo": "grpo", "credit": "sequence", "timing": "delayed", "group_size": 4}
    ours, theirs = (
        small(trainer, **grpo, batch_size=16, n_epochs=1) for trainer in ("textgym", "trl")
    )
    before, same = ours[0], theirs[0]
    assert (before.score, before.std, before.length) == (same.score, same.std, same.length)
    assert theirs[-1].tokens >= 64
    assert theirs[-1].kl > 0.01
    assert theirs[0].wall < theirs[-1].wall


def test_of_stock_algorithms_the_speed_is_told(tmp_path: Path):
    part = PARTS["stock"]
    slow = arm(tmp_path, "sb3-ppo", points([0.0, 0.0, 0.0, 0.0, 0.0]))
    assert "| sb3-ppo | 1,000.00 |" in report.speeds(part, [slow])
