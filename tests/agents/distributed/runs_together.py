"""Runs trainings in several processes, of which some are killed. For `test_runs_together.py`.

A program of its own: it imports everything once, and all processes are forks of it.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processes_of_test import begin, end, fork
from rich.console import Console

from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.config import RunConfig
from agents.train import train


def work(settings: dict[str, Any], directory: Path) -> Callable[[int], None]:
    """What each process of a run does: begin, or go on."""
    resume = (directory / "config.yaml").exists()

    def run(index: int) -> None:
        torch.set_num_threads(1)
        if index:
            sys.addaudithook(lambda event, given: forbid_writing(event, given, f"{directory}/"))
        name = directory.parent / f"{directory.name}-{index}.log"
        config = RunConfig(output=directory, **settings)
        with name.open("a") as log:
            train(config, Console(file=log, width=200), resume=resume)

    return run


def forbid_writing(event: str, given: tuple[Any, ...], directory: str) -> None:
    """Raise if a process that is not the first writes to the directory of a run."""
    if event == "open" and isinstance(given[0], str) and given[0].startswith(directory):
        mode, flags = given[1], given[2]
        if (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            os.write(2, f"writes {given[0]}\n".encode())
            os._exit(3)


def is_running(pid: int) -> bool:
    """Whether a child has not ended; it is left to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def reached(directory: Path) -> int:
    """Tokens of the newest checkpoint; -1 if there is none."""
    latest = Checkpoints(directory / "checkpoints").latest
    return -1 if latest is None else tokens_of(latest)


def killed(settings: dict[str, Any], directory: Path, kills: int) -> dict[str, Any]:
    """A run to its end, and one of which a process is killed so often, by chance."""
    chance = random.Random(0)
    fork(2, work(settings, directory / "whole"))
    told, waited = [], []
    while len(told) < kills:
        far = settings["total_timesteps"] * (len(told) + 1) // (kills + 2)
        children = begin(2, work(settings, directory / "killed"))
        while reached(directory / "killed") < far:
            if not all(map(is_running, children)):
                raise SystemExit(f"it ended before it was killed: {end(children)}")
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(chance.choice(children), signal.SIGKILL)
        at = time.monotonic()
        statuses = end(children)
        waited.append(time.monotonic() - at)
        if not any(map(os.WIFSIGNALED, statuses)):
            raise SystemExit(f"it was over before it was killed: {statuses}")
        told.append(reached(directory / "killed"))
    fork(2, work(settings, directory / "killed"))
    return {"reached": told, "waited": waited}


def resized(settings: dict[str, Any], directory: Path, counts: list[int]) -> dict[str, Any]:
    """A run that goes on with another number of processes each time, for as many tokens more."""
    told = []
    for part, count in enumerate(counts, 1):
        tokens = settings["total_timesteps"] * part // len(counts)
        fork(count, work({**settings, "total_timesteps": tokens}, directory / "resized"))
        told.append(reached(directory / "resized"))
    return {"reached": told}


def main() -> None:
    how, settings, directory, *arguments = json.loads(sys.stdin.read())
    modes = {"killed": killed, "resized": resized}
    print(json.dumps(modes[how](settings, Path(directory), *arguments)))


if __name__ == "__main__":
    main()
