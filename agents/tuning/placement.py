"""Where trials run: what Ray is told of them, and how much room it has."""

from __future__ import annotations

from typing import Any

import ray
from ray import exceptions

from agents.ray_cluster import check_machines
from agents.tuning.board import Board, Report, Verdict
from agents.tuning.config import TuneConfig
from agents.tuning.trial import Assignment, Outcome, carry_out

_ray: Any = ray
"""Parts of Ray that have no types."""

LOST = (
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.WorkerCrashedError,
)
"""What Ray says when a trial's worker or its machine is gone, of which the trial knows nothing."""


class Placement:
    """Trials on the Ray that this process is connected to.

    Args:
        config: What a trial needs.

    Attributes:
        board: Where they report.

    Raises:
        OSError: If a machine of the cluster lacks this package.
        ValueError: If this machine has not what a trial needs.
    """

    def __init__(self, config: TuneConfig) -> None:
        self._cpus, self._gpus = config.cpus_per_trial, config.gpus_per_trial
        self._most = config.at_once
        if config.address is None and not self.has_room:
            raise ValueError(
                f"a trial wants {_sizes(self._cpus, self._gpus)}, and this machine has "
                f"{_there()}. Give fewer --cpus-per-trial or --gpus-per-trial, or the --address "
                "of a cluster."
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

    @property
    def has_room(self) -> bool:
        """Whether a machine that is there now could hold a trial."""
        return self._room() > 0

    @property
    def want(self) -> str:
        """What is said while no machine can hold a trial."""
        return (
            f"No machine of the cluster can hold a trial, which wants "
            f"{_sizes(self._cpus, self._gpus)}; there are machines of {_there()}. Trials wait for "
            "one that joins; Ctrl-C ends the sweep."
        )

    @property
    def at_once(self) -> int:
        """How many trials may be given out: a cluster may grow, so that one always is."""
        room = max(self._room(), 1)
        return room if self._most is None else min(room, self._most)

    def begin(self, assignment: Assignment) -> Any:
        """Give a trial out; returns what Ray calls its outcome."""
        return self._work.remote(assignment, self.board)

    def _room(self) -> int:
        """How many trials the machines hold side by side, whoever else is on them."""
        return sum(map(self._fits, _machines()))

    def _fits(self, has: dict[str, float]) -> int:
        by_cpus = int(has.get("CPU", 0) // self._cpus)
        if not self._gpus:
            return by_cpus
        gpus = has.get("GPU", 0.0)
        # Trials that share GPUs do not lie across two.
        by_gpus = int(gpus) * int(1 // self._gpus) if self._gpus < 1 else int(gpus // self._gpus)
        return min(by_cpus, by_gpus)


def _machines() -> list[dict[str, float]]:
    """What each machine has that is there now."""
    return [node["Resources"] for node in _ray.nodes() if node["Alive"]]


def _there() -> str:
    """How large the machines are, each size once."""
    sizes = {_sizes(has.get("CPU", 0.0), has.get("GPU", 0.0)): None for has in _machines()}
    return ", or ".join(sizes)


def _sizes(cpus: float, gpus: float) -> str:
    return " and ".join(
        f"{n:g} {what}{'s' * (n != 1)}" for n, what in ((cpus, "CPU"), (gpus, "GPU"))
    )


def _work(assignment: Assignment, board: Any) -> Outcome:
    def report(report: Report) -> Verdict:
        verdict: Verdict = ray.get(board.report.remote(report))
        return verdict

    return carry_out(assignment, report)
