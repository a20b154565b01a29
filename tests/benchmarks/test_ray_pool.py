"""Jobs on a Ray: the same results as in processes, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import compare_rewards
import psutil
import pytest
import ray
from comparison.curve import Curve
from comparison.pool import carry_out, executor
from comparison.ray_pool import RayExecutor, WorkerLost
from comparison.rows import Row
from comparison.run import Run, train
from ray.exceptions import OutOfMemoryError

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
            # Of the Ray that was started here: another may carry out the same job.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "".join(process.cmdline()[:1]).startswith(f"ray::{job}"):
                        process.kill()
                        killed.append(process.pid)
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
def test_a_job_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
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
    died, raised = sorted(failures)
    assert died.startswith(
        "dies: WorkerLost: dies lost its worker 3 times (WorkerCrashedError). Ray's logs"
    )
    assert raised == "raises: KeyError: 'raises'"
    said = capsys.readouterr().out
    for retry in (1, 2):
        assert (
            f"dies lost its worker, and is tried again (WorkerCrashedError; {retry} of 2)" in said
        )
    assert "3 of 2" not in said


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


@pytest.mark.usefixtures("local_ray")
def test_memory_that_runs_out_is_counted_too(monkeypatch: pytest.MonkeyPatch):
    pool = RayExecutor()
    failed: Future[Any] = Future()
    failed.set_exception(OutOfMemoryError("ten lines of Ray"))
    attempts: list[str] = []

    def place(call: Any) -> None:
        attempts.append(call.name)
        pool._placed[call.future] = None
        pool._land(call, failed)

    monkeypatch.setattr(pool, "_place", place)
    with pytest.raises(WorkerLost, match=r"hungry lost its worker 3 times.*fewer --workers"):
        pool.submit(print, "hungry").result(30)
    assert attempts == ["hungry"] * 3


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nobody", "'nobody' is no address of a Ray; expected 'auto', 'HOST:6379' or 'ray://"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 "),
    ],
)
def test_a_wrong_address_is_one_line(
    address: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # by another test
    given = ["compare_rewards.py", "--quick", "--ray", address, "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(SystemExit) as ended:
        compare_rewards.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare_rewards.py: error: {why}")
    assert line.endswith("leave it out and all runs on this machine.")
