"""Sweeps on a Ray of two workers, of which one dies; and single trials."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import RayTaskError
from rich.console import Console
from safetensors.torch import load_file

from agents import run_lock
from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.config import RunConfig
from agents.ray_cluster import ClusterGone, gone
from agents.reporting.run import load_runs
from agents.run_file import load_config, save_config
from agents.run_lock import LOCK
from agents.train import train
from agents.tuning import placement
from agents.tuning import sweep as sweeps
from agents.tuning.board import Board, Report, Verdict
from agents.tuning.config import TuneConfig
from agents.tuning.page import sweep_page
from agents.tuning.placement import BOARD_LOST, Placement
from agents.tuning.results import as_csv, write_page, write_rows
from agents.tuning.study import Record, Study, score_of
from agents.tuning.sweep import tune
from agents.tuning.trial import (
    Assignment,
    Outcome,
    UnfitMachine,
    UnknownMetric,
    carry_out,
    check_shared,
)

REWARDS = '''
import os, signal

def deadly_once(text):
    """Kills the first process that has scored some texts; then it is harmless."""
    return kill(text, os.O_EXCL)

def deadly(text):
    return kill(text, 0)

def wrong(text):
    raise ValueError("this reward knows nothing")

calls = 0

def kill(text, flags):
    global calls
    calls += 1
    if calls > 150:
        try:
            os.close(os.open(os.path.join(HERE, "killed"), os.O_CREAT | flags))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return text.count("a") / 10
'''


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: str, make_llama: Any):
    """A directory with a tiny model, prompts and rewards of one's own, from which one works."""
    place = tmp_path_factory.mktemp("workplace")
    torch.manual_seed(0)
    make_llama(vocab_size=11).save_pretrained(place / "model")
    for file in Path(tiny_tokenizer_dir).iterdir():
        (place / "model" / file.name).write_bytes(file.read_bytes())
    (place / "rewards_of_sweeps.py").write_text(f"HERE = {str(place)!r}\n{REWARDS}")
    lines = [f'{{"prompt": "{letter}"}}' for letter in "abcdefghij" * 3]
    (place / "prompts.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        yield place


SMALL: dict[str, Any] = {
    "model": "model",
    "task": {"name": "file", "path": "prompts.jsonl"},
    "total_timesteps": 192,
    "n_envs": 4,
    "n_steps": 16,
    "max_new_tokens": 8,
    "eval_prompts": 4,
    "checkpoint_every": 0.0,
    "loggers": (),
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def check_same_weights(trial: Path, tmp_path: Path) -> None:
    """A trial has the weights of the same run that nobody cut."""
    config = replace(load_config(trial / "config.yaml"), output=tmp_path / f"again-{trial.name}")
    again = weights(train(config, Console(quiet=True)))
    found = weights(trial)
    assert found.keys() == again.keys()
    assert all(torch.equal(found[name], again[name]) for name in again)


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_worker_that_is_killed_goes_on_from_its_checkpoint(
    local_ray: str, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TuneConfig(
        **SMALL,
        search=("learning_rate=1e-3,3e-3",),
        reward="rewards_of_sweeps:deadly_once",
        output=tmp_path / "sweep",
    )
    sweep = tune(config)
    said = capsys.readouterr().out
    assert said.startswith(f"2 trials of 192 tokens, 2 at a time. Writing to {sweep}\n")
    assert "goes on from its checkpoint (WorkerCrashedError; 1 of 2)" in said
    assert "Best is trial" in said
    landed = rows(sweep)
    assert [row["state"] for row in landed] == ["done", "done"]
    assert sorted(row["worker_deaths"] for row in landed) == ["0", "1"]
    (killed,) = [row["trial"] for row in landed if row["worker_deaths"] == "1"]
    assert "Going on after" in (sweep / f"trial-00{killed}" / "console.txt").read_text()
    check_same_weights(sweep / f"trial-00{killed}", tmp_path)
    best = max(landed, key=lambda row: float(row["score"]))
    assert load_config(sweep / "best.yaml").learning_rate == float(best["learning_rate"])
    assert best["score"] in (sweep / "study.journal").read_text()
    page = (sweep / "report.html").read_text()
    assert all(f"trial-00{number}/report.html" in page for number in (0, 1))
    assert load_runs([sweep / "trial-000"])[0].has_ended

    # There is nothing left to try, and what has ended is not run again.
    ended = (sweep / "trial-000" / "result.json").stat().st_mtime_ns
    tune(replace(load_config(sweep / "config.yaml", TuneConfig, "tune"), output=sweep), resume=True)
    assert (sweep / "trial-000" / "result.json").stat().st_mtime_ns == ended
    again = capsys.readouterr().out
    assert again.startswith("Nothing is left to do; all combinations are tried.\n")
    assert said.endswith(again.partition("\n")[2])
    with pytest.raises(ValueError, match="has other settings"):
        tune(replace(config, seed=1), resume=True)
    with pytest.raises(FileExistsError, match="tune --resume"):
        tune(config)


def test_a_sweep_that_was_stopped_goes_on(
    local_ray: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    config = TuneConfig(
        **SMALL, search=("learning_rate=log:1e-3:1e-2",), reward="length", trials=1, output=sweep
    )
    sweep.mkdir()
    save_config(config, sweep / "config.yaml", "tune")
    study = Study(config, sweep)
    begun = config.run_config(study.values(study.begin()), sweep / "trial-000")
    study.end(0, cut_after(begun, sweep, tokens=64)[-1])
    states = []
    monkeypatch.setattr(
        sweeps, "write_rows", lambda *given: (write_rows(*given), states.append(rows(sweep)))
    )
    looked = []

    def look(address: str | None) -> None:
        looked.append(address)
        if len(looked) == 2:
            raise gone(address)

    with monkeypatch.context() as patch:
        patch.setattr(placement, "check_alive", look)
        patch.setattr(placement, "_LOOK_EVERY", 0.0)
        with pytest.raises(
            ClusterGone, match="started here is gone; go on with: textgym tune --re"
        ):
            tune(config, Console(quiet=True), resume=True)
    assert [row["state"] for (row,) in states] == ["stopped"]
    states.clear()
    # Ctrl-C when all is over cuts nothing.
    monkeypatch.setattr(sweeps, "say_results", lambda *given: os.kill(os.getpid(), signal.SIGINT))
    tune(config, Console(quiet=True), resume=True)
    assert [row["state"] for (row,) in states] == ["running", "done", "done"]
    assert [row["state"] for row in rows(sweep)] == ["done"]
    assert "Going on after" in (sweep / "trial-000" / "console.txt").read_text()
    check_same_weights(sweep / "trial-000", tmp_path)


def test_a_trial_that_fails_is_noted_and_the_sweep_goes_on(
    local_ray: str, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("length", "rewards_of_sweeps:wrong", "rewards_of_sweeps:deadly")
    config = TuneConfig(
        **SMALL, search=(f"reward={','.join(names)}",), retries=0, output=tmp_path / "sweep"
    )
    sweep = tune(config)
    done, failed, cut = rows(sweep)
    assert [done["state"], failed["state"], cut["state"]] == ["done", "failed", "cut"]
    assert "this reward knows nothing" in failed["message"]
    said = capsys.readouterr().out
    assert "Trials cut: 1, not begun: 0. Go on: textgym tune --resume" in said


def assignment(config: RunConfig, sweep: Path) -> Assignment:
    (sweep / LOCK).write_text("driver")
    return Assignment(
        0,
        config,
        "validation/mean_score",
        config.validate_every,
        1,
        False,
        "driver",
        os.getcwd(),
    )


def cut_after(config: RunConfig, sweep: Path, tokens: int, verdict: Verdict = "stop") -> list[Any]:
    """Carry a trial out until it has written so much; returns its reports, and the outcome."""
    reports: list[Any] = []

    def report(report: Report) -> Verdict:
        reports.append(report)
        return verdict if report.timesteps >= tokens else "go on"

    return [*reports, carry_out(assignment(config, sweep), report)]


@pytest.mark.parametrize(("verdict", "state"), [("stop", "stopped"), ("prune", "pruned")])
def test_a_trial_ends_when_it_is_told(
    workplace: Path, tmp_path: Path, verdict: Verdict, state: str
) -> None:
    run = tmp_path / "trial-000"
    config = RunConfig(**SMALL, reward="length", output=run)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray does
    try:
        outcome = cut_after(config, tmp_path, 64, verdict)[-1]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    assert outcome.state == state
    latest = Checkpoints(run / "checkpoints").latest
    assert latest is not None
    assert tokens_of(latest) in (64, 128)
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("metric", ["train/entropi", "validation/mean_scor", "objective/skores"])
def test_a_metric_that_nobody_logs_ends_the_sweep(
    metric: str, workplace: Path, tmp_path: Path
) -> None:
    config = RunConfig(**SMALL, reward="length", output=tmp_path / "trial-000")
    asked = replace(assignment(config, tmp_path), metric=metric)
    with pytest.raises(UnknownMetric, match=r"no such column .* Did you mean \w+/\w+.*\? All"):
        carry_out(asked, lambda report: "go on")
    # As soon as it can be known.
    assert not (tmp_path / "trial-000" / "result.json").exists()


def test_a_score_that_is_no_number_is_no_score(workplace: Path, tmp_path: Path) -> None:
    config = TuneConfig(**SMALL, reward="length", search=("learning_rate=log:1e-5:1e-3",), trials=2)
    study = Study(config, tmp_path)
    for scores in ([math.nan, 0.5], [math.nan, math.inf]):
        number = study.begin()
        for look, score in enumerate(scores, 1):
            study.hear(Report(number, look * 64, score, look))
    study.end(0, Outcome("pruned", 0.5, 128))
    study.end(1, Outcome("failed", message="diverged"))
    again = Study(config, tmp_path).records
    assert [dict(record.looks) for record in again] == [{2: 0.5}, {}]
    assert again[0].tokens == {1: 64, 2: 128}
    assert [score_of(record) for record in again] == [0.5, -math.inf]
    write_rows(config, tmp_path, again, running=())
    write_page(config, tmp_path, again, importances={})
    assert "0.5" in (tmp_path / "trials.csv").read_text()
    assert "diverged" in (tmp_path / "report.html").read_text()


def test_a_machine_that_sees_other_files_is_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_text("the driver")
    check_shared(tmp_path, "the driver")
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.3)
    for directory in (tmp_path / "elsewhere", tmp_path):
        with pytest.raises(UnfitMachine, match="Give an --output on a file system that all"):
            check_shared(directory, "another driver")


def test_a_score_waits_for_its_verdict() -> None:
    async def talk() -> None:
        board = Board()
        assert await board.take(0.01) == []
        assert await board.report(Report(1, 10)) == "go on"
        waiting = asyncio.ensure_future(board.report(Report(1, 20, 0.5, 1)))
        await asyncio.sleep(0)
        assert [report.timesteps for report in await board.take(1)] == [10, 20]
        assert not waiting.done()
        await board.answer(1, "prune")
        assert await waiting == "prune"
        assert await board.take(0.01, stopping=True) == []
        assert await board.report(Report(1, 30)) == "stop"

    asyncio.run(talk())


def test_a_board_that_begins_anew_hears_that_trials_shall_stop(local_ray: str) -> None:
    board = Placement(TuneConfig(search=("seed=1,2",))).board
    waiting = board.report.remote(Report(1, 20, 0.5, 1))
    (report,) = ray.get(board.take.remote(60.0, stopping=True))
    ray.kill(board, no_restart=False)
    assert ray.get(board.take.remote(60.0, stopping=True)) == [report]  # which the trial repeats
    ray.get(board.answer.remote(1, "go on"))
    assert ray.get(waiting, timeout=60.0) == "stop"


def test_a_board_that_is_gone_is_a_cluster_that_is_gone(local_ray: str) -> None:
    there = Placement(TuneConfig(search=("seed=1,2",)))
    assert there.reports(stopping=False) == []
    ray.kill(there.board)
    with pytest.raises(ClusterGone, match="the Ray that was started here is gone"):
        there.reports(stopping=False)
    trial = ray.remote(num_cpus=0)(lambda board: ray.get(board.report.remote(Report(1, 20))))
    with pytest.raises(RayTaskError) as raised:
        ray.get(trial.remote(there.board))
    assert isinstance(raised.value.cause, BOARD_LOST)


def test_axes_have_a_place_for_all_that_is_searched(tmp_path: Path) -> None:
    config = TuneConfig(search=("n_steps=int:10:60", "gamma=log:0.1:1", "algo=ppo,a2c"))
    values = {"n_steps": 20, "gamma": 0.5, "algo": "ppo"}
    record = Record(0, values, Outcome("done", 0.5, 64), 0, {1: 0.5}, {1: 72})
    text = sweep_page(config, "sweep", [record], {}).partition('id="data">')[2]
    charts = {each["title"]: each for each in json.loads(text.partition("</script>")[0])["charts"]}
    axes = {name: charts[name]["x_range"] for name in ("Score by trial", *values)}
    assert axes["Score by trial"] == [-0.5, 0.5]
    assert axes["algo"] == [-0.5, 1.5]
    assert axes["n_steps"] == [6.0, 64.0]
    assert axes["gamma"] == pytest.approx([-1.08, 0.08])
    assert all(chart["y_range"] == pytest.approx([0.45, 0.55]) for chart in charts.values())
    (line,) = charts["Score in the course of a trial"]["lines"]
    assert line["name"] == "trial 0"
    assert line["x"] == [72]  # and not where it was to be looked at
    assert line["settings"] == ["n_steps 20", "gamma 0.5", "algo ppo"]


def test_a_trial_that_goes_on_is_not_stopped() -> None:
    stopped = Record(0, {"seed": 1}, Outcome("stopped", 0.25, 64), 0, {1: 0.125}, {1: 64})
    begun = Record(1, {"seed": 2}, None, 1, {}, {})
    for running, states in (
        ((0, 1), "running running"),
        ((1,), "stopped running"),
        ((), "stopped cut"),
    ):
        _, *lines = as_csv(["seed"], [stopped, begun], running).splitlines()
        assert [line.split(",")[1] for line in lines] == states.split()
    assert as_csv(["seed"], [stopped], (0,)).splitlines()[1] == "0,running,1,0.125,,,,0,"


def test_a_machine_that_cannot_use_its_gpu_is_told_from_others(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    config = RunConfig(**SMALL, reward="length", output=tmp_path / "trial-000")
    asked = replace(assignment(config, tmp_path), has_gpu=True)
    with pytest.raises(UnfitMachine, match="gave a trial a GPU that torch"):
        carry_out(asked, lambda report: "go on")


@pytest.mark.parametrize(("share", "trials"), [(0.1, 20), (0.2, 10), (0.3, 6), (1.0, 2)])
def test_trials_share_gpus(
    share: float, trials: int, local_ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.tuning.placement.machines", lambda: [{"CPU": 64.0, "GPU": 2.0}])
    assert Placement(TuneConfig(search=("seed=1,2",), gpus_per_trial=share)).at_once == trials


def test_room_for_trials_is_said(local_ray: str) -> None:
    config = TuneConfig(search=("seed=1,2",), cpus_per_trial=3, gpus_per_trial=1.0)
    with pytest.raises(ValueError, match="wants 3 CPUs and 1 GPU, and this machine has 2 CPUs and"):
        Placement(config)
    there = Placement(replace(config, address="auto"))
    assert not there.has_room
    assert there.at_once == 1  # a cluster may grow
    assert "wants 3 CPUs and 1 GPU; there are machines of 2 CPUs and 0 GPUs" in there.want
