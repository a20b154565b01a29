"""Some processes train, and say what it took."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from speed.learners import LEARNING_RATE
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch.multiprocessing.spawn import start_processes

from agents import TokenPPO, TransformerPolicy
from agents.distributed.processes import Processes
from scale.cases import Case
from scale.sockets import bytes_sent


@dataclass(frozen=True)
class Phase:
    """What a rollout or an update took in one process, or in the middle of several.

    Attributes:
        seconds: All of it.
        exchange: Seconds in which Python waited for what others say: numbers and arrays, and not
            gradients, which are sent while the backward pass goes on.
        sent: Bytes sent.
    """

    seconds: float
    exchange: float
    sent: float


@dataclass(frozen=True)
class Iteration:
    """A rollout and the update that follows it."""

    rollout: Phase
    update: Phase


class _Watch(BaseCallback):
    """Notes what each phase took.

    Args:
        meet: Called at the end of each phase: whoever exchanges nothing keeps step by it.
    """

    def __init__(self, meet: Callable[[], object]) -> None:
        super().__init__()
        self._meet = meet
        self.exchange = 0.0
        self.phases: list[Phase] = []
        self._since: tuple[float, float, int] | None = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._next()

    def _on_rollout_end(self) -> None:
        self._next()

    def _on_training_end(self) -> None:
        self._next()

    def _next(self) -> None:
        now, sent = perf_counter(), bytes_sent()
        if self._since is not None:
            began, exchange, before = self._since
            self.phases.append(Phase(now - began, self.exchange - exchange, sent - before))
        self._meet()
        self._since = perf_counter(), self.exchange, sent

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose seconds are exchange."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = perf_counter()
            result = function(*args, **kwargs)
            self.exchange += perf_counter() - began
            return result

        return call


def measure(case: Case, iterations: int, warm_up: int = 1) -> tuple[int, list[Iteration]]:
    """Train in new processes.

    Args:
        case: With what, and how many.
        iterations: How many rollouts and updates are measured.
        warm_up: How many come before them.

    Returns:
        Numbers that are trained, and each iteration, the mean over processes.
    """
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    barrier = get_context("fork").Barrier(case.processes)
    with tempfile.TemporaryDirectory() as directory:
        given = (case, port, barrier, warm_up, iterations, directory)
        # Forks have everything imported.
        start_processes(  # type: ignore[no-untyped-call]
            _work, given, case.processes, start_method="fork"
        )
        told = [json.loads(path.read_text()) for path in Path(directory).iterdir()]
    every = [[Phase(**phase) for phase in one["phases"]] for one in told]
    phases = [_mean(phase) for phase in zip(*every, strict=True)]
    found = [Iteration(*pair) for pair in zip(phases[::2], phases[1::2], strict=True)]
    return told[0]["trained"], found


def _work(
    index: int, case: Case, port: int, barrier: Any, warm_up: int, iterations: int, directory: str
) -> None:
    torch.set_num_threads(1)
    if case.together and case.processes > 1:
        launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": index}
        launcher |= {"LOCAL_RANK": index, "WORLD_SIZE": case.processes}
        os.environ.update({name: str(value) for name, value in launcher.items()})
    algorithm = _algorithm(case)
    trained = sum(p.numel() for p in algorithm.policy.parameters() if p.requires_grad)
    count = case.processes if case.together else 1
    # One more, so that what is prepared for a rollout is seen behind each update.
    tokens = (warm_up + iterations + 1) * count * case.load.written
    meets = case.processes > 1 and not case.together
    watch = _Watch(barrier.wait if meets else lambda: None)
    with (
        patch.object(Processes, "gather", watch.timed(Processes.gather)),
        patch.object(Processes, "sum", watch.timed(Processes.sum)),
    ):
        algorithm.learn(tokens, watch)
    phases = [asdict(phase) for phase in watch.phases[2 * warm_up : -2]]
    told = {"trained": trained, "phases": phases}
    (Path(directory) / f"{index}.json").write_text(json.dumps(told))


def _algorithm(case: Case) -> TokenPPO:
    load = case.load
    network: dict[str, Any] = {"model": case.workload.model()}
    if case.lora:
        network["lora"] = {"r": case.lora}
    algorithm = TokenPPO(
        TransformerPolicy,
        case.workload.env(),
        learning_rate=LEARNING_RATE,
        n_steps=load.new,
        batch_size=load.written // load.mini_batches,
        n_epochs=load.epochs,
        policy_kwargs=network,
        device="cpu",
        seed=0,
        shard=case.shard,
    )
    algorithm.set_logger(Logger(None, []))
    return algorithm


def _mean(phases: Sequence[Phase]) -> Phase:
    columns = zip(*(asdict(phase).values() for phase in phases), strict=True)
    return Phase(*map(mean, columns))
