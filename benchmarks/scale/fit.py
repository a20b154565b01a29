"""The cost model of this machine, from what was measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from scale.cases import Case
from scale.cost import Machine, exchange_terms, fitted, rollout_terms, update_terms
from scale.records import Record


@dataclass(frozen=True)
class Prediction:
    """What the model says of a case, beside what was measured.

    Attributes:
        record: What was measured.
        rollout: Seconds of a rollout, predicted.
        update: Seconds of an update, predicted.
    """

    record: Record
    rollout: float
    update: float

    @property
    def errors(self) -> tuple[float, float, float]:
        """By how much rollout, update and both are predicted too long, over what they took."""
        took = self.record.rollout, self.record.update, self.record.seconds
        said = self.rollout, self.update, self.rollout + self.update
        rollout, update, both = (s / t - 1 for s, t in zip(said, took, strict=True))
        return rollout, update, both


def fit(records: Sequence[Record]) -> Machine:
    """Fit all coefficients to what is not held out.

    First what computing takes, to one process alone; then by how much several at a time are
    slower, to those that do not exchange anything; then exchange, to what those that do take
    longer. Others than these, with adapters or sharded weights, are not looked at.

    Args:
        records: What was measured.
    """
    shown = [one for one in records if not one.case.held_out and is_plain(one.case)]
    alone = [one for one in shown if one.case.processes == 1]
    rollout = fitted(
        [rollout_terms(one.case.shape, one.case.load) for one in alone],
        [one.rollout for one in alone],
    )
    update = fitted(
        [update_terms(one.case.shape, one.case.load) for one in alone],
        [one.update for one in alone],
    )
    by_case = {one.case: one for one in records}
    slowdown = {1: (1.0, 1.0)}
    for count in sorted({one.case.processes for one in shown} - {1}):
        pairs = [
            (one, by_case[replace(one.case, processes=1, together=True)])
            for one in shown
            if one.case.processes == count and not one.case.together
        ]
        slowdown[count] = (
            median(one.rollout / single.rollout for one, single in pairs),
            median(one.update / single.update for one, single in pairs),
        )
    together = [one for one in shown if one.case.processes > 1 and one.case.together]
    exchange = _exchange(together, by_case)
    return Machine(rollout, update, exchange, slowdown)


def _exchange(together: Sequence[Record], by_case: dict[Case, Record]) -> dict[str, float]:
    """What a message and a byte take, from what exchange adds to updates.

    Errors count relative to the whole update: where it adds little, little is known of it.
    """
    terms, measured = [], []
    for one in together:
        apart = by_case[replace(one.case, together=False)]
        traffic = one.traffic
        counts = exchange_terms(traffic.messages, traffic.sent, one.case.processes)
        # Known, with a coefficient of its own that is 1 where all else is right.
        terms.append({**counts, "computing": apart.update})
        measured.append(one.update)
    found = fitted(terms, measured)
    return {name: found[name] for name in ("messages", "bytes")}


def is_plain(case: Case) -> bool:
    """Whether all weights are trained, and whole in each process."""
    return case.lora is None and not case.shard


def predict(machine: Machine, record: Record) -> Prediction:
    """What the model says of a case."""
    case = record.case
    traffic = record.traffic
    rollout, update, _ = machine.predict(
        case.shape, case.load, case.processes, traffic.messages, traffic.sent
    )
    return Prediction(record, rollout, update)
