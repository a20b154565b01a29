"""Where trials run: what Ray is told of them, and how much room it has."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import exceptions

from agents.ray_cluster import check_alive, check_machines, gone, machines, sizes
from agents.tuning.board import Board, Report, Verdict
from agents.tuning.config import TuneConfig
from agents.tuning.trial import Assignment, Outcome, carry_out

BOARD_LOST = exceptions.RayActorError
"""What a trial raises that can no longer report: the machine is gone where the board was."""

_GONE = (
    exceptions.LocalRayletDiedError,
    exceptions.RayActorError,
    exceptions.RaySystemError,
    ConnectionError,
)
"""What Ray says to the driver when the cluster is gone."""

_LOOK_EVERY = 1.0
"""Seconds between two looks at which machines there are."""

_PATIENCE = 0.25
"""Seconds that the driver waits for reports before it looks at all else."""

_SILENCE = 2.0
"""Seconds for which the board may be silent: its process may begin anew."""


class Placement:
    """Trials on the Ray that this process is connected to.

    Args:
        config: What a trial needs.

    Attributes:
        board: Where they report.

    All methods raise `ClusterGone` if that is so.

    Raises:
        OSError: If a machine of the cluster lacks this package.
        ValueError: If this machine has not what a trial needs.
    """

    def __init__(self, config: TuneConfig) -> None:
        self._cpus, self._gpus = config.cpus_per_trial, config.gpus_per_trial
        self._most = config.at_once
        self._address = config.address
        self._looked = -_LOOK_EVERY
        self._taking: Any = None
        self.look()
        if config.address is None and not self.has_room:
            raise ValueError(
                f"a trial wants {self._wanted}, and this machine has {self._there}. "
                "Give fewer --cpus-per-trial or --gpus-per-trial, or the --address of a cluster."
            )
        if config.address is not None:
            check_machines()
        # It takes no room, and begins anew, and trials ask it again, should its process die.
        self.board: Any = (
            ray.remote(Board)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=10_000)
            .remote()
        )
        # Ray would try again by itself without end if memory ran out; the sweep counts.
        self._work = ray.remote(_work).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0
        )

    def look(self) -> None:
        """See which machines there are, if that is not known yet or may have changed."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        check_alive(self._address)
        with self._asking():
            self._machines = machines()
        self._looked = time.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether a machine that is there now could hold a trial."""
        return self._room() > 0

    @property
    def want(self) -> str:
        """What is said while no machine can hold a trial."""
        return (
            f"No machine of the cluster can hold a trial, which wants "
            f"{self._wanted}; there are machines of {self._there}. Trials wait for one that joins; "
            "Ctrl-C ends the sweep."
        )

    @property
    def at_once(self) -> int:
        """How many trials may be given out: a cluster may grow, so that one always is."""
        room = max(self._room(), 1)
        return room if self._most is None else min(room, self._most)

    def begin(self, assignment: Assignment) -> Any:
        """Give a trial out; returns what Ray calls its outcome."""
        with self._asking():
            return self._work.remote(assignment, self.board)

    def ended(self, outcomes: Collection[Any]) -> list[Any]:
        """Those of some outcomes that are there."""
        with self._asking():
            refs = list(outcomes)
            ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return ended

    def reports(self, *, stopping: bool) -> list[Report]:
        """What trials have reported since; waits for a moment if that is nothing.

        Args:
            stopping: Whether all of them shall save and stop.
        """
        with self._asking():
            if self._taking is None:
                self._taking = self.board.take.remote(_PATIENCE, stopping=stopping)
            # Without end Ray would wait for an answer, if the head is gone that knows of the board.
            answered, _ = ray.wait([self._taking], timeout=_SILENCE)
            if not answered:
                return []
            taken: list[Report] = ray.get(self._taking)
            self._taking = None
        return taken

    def answer(self, number: int, verdict: Verdict) -> None:
        """Tell a trial what it shall do, which has reported a score."""
        with self._asking():
            self.board.answer.remote(number, verdict)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except _GONE as error:
            raise gone(self._address) from error

    def _room(self) -> int:
        """How many trials the machines hold side by side, whoever else is on them."""
        return sum(map(self._fits, self._machines))

    def _fits(self, has: dict[str, float]) -> int:
        by_cpus = int(has.get("CPU", 0) // self._cpus)
        if not self._gpus:
            return by_cpus
        gpus = has.get("GPU", 0.0)
        # Trials that share GPUs do not lie across two.
        by_gpus = int(gpus) * int(1 / self._gpus) if self._gpus < 1 else int(gpus // self._gpus)
        return min(by_cpus, by_gpus)

    @property
    def _wanted(self) -> str:
        """What a trial needs, in words."""
        return " and ".join(sizes(self._cpus, self._gpus))

    @property
    def _there(self) -> str:
        """How large the machines are, each size once."""
        each = (sizes(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in self._machines)
        return ", or ".join(dict.fromkeys(map(" and ".join, each)))


def _work(assignment: Assignment, board: Any) -> Outcome:
    def report(report: Report) -> Verdict:
        verdict: Verdict = ray.get(board.report.remote(report))
        return verdict

    return carry_out(assignment, report)
