"""Jobs on a Ray: the same results as in processes, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from comparison.curve import Curve
from comparison.pool import carry_out, executor
from comparison.ray_pool import RayExecutor
from comparison.rows import Row
from comparison.run import Run, train

TOKENS_OF_ROLLOUT = 2_048
LONG = Run("length", "immediate", 0, 1.0, 0.9, 2 * TOKENS_OF_ROLLOUT, ("length",))
SHORT = Run("length", "delayed", 1, 1.0, 1.0, TOKENS_OF_ROLLOUT, ("length",))

Results = dict[Run, tuple[Row, list[Row]]]


def carried_out(pool: Executor, checkpoints: Path) -> Results:
    """Both runs in a pool."""
    results: Results = {}

    def keep(run: Run, result: tuple[Row, list[Row]]) -> str:
        results[run] = result
        return ""

    work = partial(train, checkpoints=checkpoints, every=0.0)
    assert carry_out([LONG, SHORT], work, keep, pool) == []
    assert not list(checkpoints.iterdir())  # of runs that are done
    return results


def timeless(results: Results) -> Results:
    def of(row: Row) -> Row:
        return {name: value for name, value in row.items() if name != "seconds"}

    return {run: (of(row), [of(point) for point in curve]) for run, (row, curve) in results.items()}


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    with executor(2) as pool:
        return carried_out(pool, tmp_path_factory.mktemp("checkpoints"))


def test_a_run_that_was_cut_goes_on_inside(
    by_processes: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    learned_from: list[int] = []
    take_point = Curve._on_rollout_end

    def cut(self: Any) -> None:
        take_point(self)
        learned_from.append(self.points[-1].tokens)
        if learned_from == [0, TOKENS_OF_ROLLOUT]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curve, "_on_rollout_end", cut)
    with pytest.raises(KeyboardInterrupt):
        train(LONG, tmp_path, every=0.0)
    row, curve = train(LONG, tmp_path, every=0.0)
    assert learned_from == [0, TOKENS_OF_ROLLOUT, TOKENS_OF_ROLLOUT]
    assert timeless({LONG: (row, curve)}) == timeless({LONG: by_processes[LONG]})
    # Nothing is counted twice, and nothing is forgotten.
    assert 0 < curve[0]["seconds"] < curve[1]["seconds"] < row["seconds"]
    assert not list(tmp_path.iterdir())


def kill_worker_of(job: str, checkpoints: Path, killed: list[int]) -> None:
    """Kill who carries out a job, once it has learned something."""
    for _ in range(2_400):
        if any(int(path.name) for path in checkpoints.glob("length-immediate-*/0*")):
            for process in psutil.process_iter(["cmdline"]):
                if process.info["cmdline"] and process.info["cmdline"][0].startswith(f"ray::{job}"):
                    killed.append(process.pid)
                    process.kill()
            return
        time.sleep(0.05)


@pytest.mark.usefixtures("local_ray")
def test_results_are_those_of_processes_though_a_worker_is_killed(
    by_processes: Results, tmp_path: Path
):
    killed: list[int] = []
    killer = threading.Thread(target=kill_worker_of, args=(f"{LONG}", tmp_path, killed))
    killer.start()
    on_ray = carried_out(RayExecutor(), tmp_path)
    killer.join()
    assert len(killed) == 1
    assert timeless(on_ray) == timeless(by_processes)


@pytest.mark.usefixtures("local_ray")
def test_a_job_fails_alone(tmp_path: Path):
    attempts = tmp_path / "attempts"

    def work(job: str) -> str:
        if job == "dies":
            with attempts.open("a") as file:
                file.write("again\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "raises":
            raise KeyError(job)
        return job

    kept: list[str] = []
    with RayExecutor() as pool:
        jobs = ["dies", "raises", "works"]
        failures = carry_out(jobs, work, lambda job, result: kept.append(result) or "", pool)
    assert kept == ["works"]
    assert attempts.read_text().count("again") == 3
    assert sorted(failure.split(":")[0] for failure in failures) == ["dies", "raises"]
    assert "raises: KeyError: 'raises'" in failures


@pytest.mark.usefixtures("local_ray")
def test_an_interrupted_pool_ends_at_once(tmp_path: Path):
    def sleep(job: str) -> None:
        (tmp_path / job).touch()
        time.sleep(60)

    began = time.monotonic()
    pool = RayExecutor()
    futures = [pool.submit(sleep, job) for job in "abc"]
    while not list(tmp_path.iterdir()):
        time.sleep(0.05)
    pool.shutdown(cancel_futures=True)
    assert all(future.exception() for future in futures)
    assert time.monotonic() - began < 30
