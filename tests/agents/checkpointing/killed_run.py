"""Runs a training again and again, and kills it; prints how often. For `test_killed.py`.

A program of its own: it imports everything once, and each training is a fork of it.
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
from rich.console import Console

from agents.checkpointing.checkpoints import Checkpoints
from agents.config import RunConfig
from agents.train import train

Prepare = Callable[[], None]


def start(settings: dict[str, Any], directory: Path, prepare: Prepare | None = None) -> int:
    """Begin, or go on, in a process of its own; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        if prepare is not None:
            prepare()
        config = RunConfig(output=directory, **settings)
        with (directory.parent / f"{directory.name}.log").open("a") as log:
            train(config, Console(file=log), resume=(directory / "config.yaml").exists())
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def killed_after(pid: int, seconds: float) -> bool:
    """Kill a process after so long; whether it was not over by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def at_random_moments(settings: dict[str, Any], directory: Path, kills: int) -> dict[str, Any]:
    """One run to its end, and others that are killed so often, with how far they were each time."""
    began = time.monotonic()
    assert os.waitpid(start(settings, directory / "whole"), 0)[1] == 0
    seconds, chance = time.monotonic() - began, random.Random(0)
    reached: list[int] = []
    number = 0
    while len(reached) < kills:
        number += 1
        killed = directory / f"killed-{number}"
        while killed_after(start(settings, killed), chance.uniform(0, 0.4 * seconds)):
            latest = Checkpoints(killed / "checkpoints").latest
            reached.append(-1 if latest is None else int(latest.name.partition("-")[0]))
            if len(reached) >= kills:
                assert os.waitpid(start(settings, killed), 0)[1] == 0
                break
    return {"runs": number, "reached": reached, "seconds": seconds}


def while_writing(settings: dict[str, Any], directory: Path, steps: list[int]) -> dict[str, Any]:
    """A run that is killed in its next checkpoint before the given steps of writing it, in turn."""
    for at in steps:
        status = os.waitpid(
            start(settings, directory / "written", lambda at=at: die_at_step(at)), 0
        )[1]
        assert os.WIFSIGNALED(status), status
    assert os.waitpid(start(settings, directory / "written"), 0)[1] == 0
    assert os.waitpid(start(settings, directory / "whole"), 0)[1] == 0
    return {"kills": len(steps)}


def die_at_step(number: int) -> None:
    """Kill this process in its n-th step of writing a checkpoint; a file is half written then."""
    write, left = Checkpoints.write, [number]

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        return counted

    write_bytes = Path.write_bytes

    def half_written(self: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] == 0:
            write_bytes(self, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(self, data)

    def watched(self: Checkpoints, *arguments: Any) -> Path:
        kept = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "mkdir")}
        for name, step in kept.items():
            setattr(os, name, dying(step))
        Path.write_bytes = half_written  # type: ignore[method-assign]
        written = write(self, *arguments)
        for name, step in kept.items():
            setattr(os, name, step)
        Path.write_bytes = write_bytes  # type: ignore[method-assign]
        return written

    Checkpoints.write = watched  # type: ignore[method-assign]


def main() -> None:
    how, settings, directory, *arguments = json.loads(sys.stdin.read())
    modes = {"random": at_random_moments, "writing": while_writing}
    print(json.dumps(modes[how](settings, Path(directory), *arguments)))


if __name__ == "__main__":
    main()
