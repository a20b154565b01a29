"""What was measured, as it is kept, and the medians of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from speed.workload import Workload

from scale.cases import Case
from scale.traffic import Traffic, replicated, sharded
from scale.work import Iteration, Phase


@dataclass
class Record:
    """A case and all its iterations.

    Attributes:
        case: What was measured.
        trained: Numbers that are trained, as the model says.
        iterations: What each took.
    """

    case: Case
    trained: int
    iterations: list[Iteration] = field(default_factory=list)

    @property
    def rollout(self) -> float:
        """Seconds of a rollout."""
        return median(one.rollout.seconds for one in self.iterations)

    @property
    def update(self) -> float:
        """Seconds of an update."""
        return median(one.update.seconds for one in self.iterations)

    @property
    def seconds(self) -> float:
        """Seconds of an iteration."""
        return median(one.rollout.seconds + one.update.seconds for one in self.iterations)

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles of an iteration's seconds, over the median."""
        totals = [one.rollout.seconds + one.update.seconds for one in self.iterations]
        low, _, high = quantiles(totals, n=4)
        return (high - low) / 2 / self.seconds

    @property
    def waited(self) -> float:
        """Seconds of an iteration in which Python waited for what others say."""
        return median(one.rollout.exchange + one.update.exchange for one in self.iterations)

    @property
    def sent(self) -> float:
        """Bytes that a process sends in an iteration, as the kernel counted them."""
        return median(one.rollout.sent + one.update.sent for one in self.iterations)

    @property
    def traffic(self) -> Traffic:
        """The same by formula."""
        case = self.case
        count = case.processes if case.together else 1
        if case.shard and count > 1:
            return sharded(case.shape, case.load, count, gloo=True)
        return replicated(case.shape, case.load, count, self.trained)

    @property
    def tokens_per_second(self) -> float:
        """Tokens that all processes write, over the seconds of an iteration."""
        return self.case.processes * self.case.load.written / self.seconds


def save(path: Path, machine: dict[str, Any], records: Sequence[Record]) -> None:
    """Write all of it."""
    everything = {"machine": machine, "records": [asdict(record) for record in records]}
    path.write_text(json.dumps(everything, indent=None) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Read it again."""
    everything = json.loads(path.read_text(encoding="utf-8"))
    return everything["machine"], [_record(**record) for record in everything["records"]]


def _record(case: dict[str, Any], trained: int, iterations: list[dict[str, Any]]) -> Record:
    workload = Workload(**case.pop("workload"))
    phases = [
        Iteration(*(Phase(**one[name]) for name in ("rollout", "update"))) for one in iterations
    ]
    return Record(Case(workload, **case), trained, phases)
