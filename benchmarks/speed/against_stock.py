"""Stock SB3 PPO against `TokenPPO`, end to end, from the same weights and with the same numbers."""

from __future__ import annotations

from typing import NamedTuple

from speed.learners import Iteration, fast, stock
from speed.results import Figures, Section, Target
from speed.workload import Workload

EPOCHS = 4


class Case(NamedTuple):
    """A comparison.

    Attributes:
        workload: What is written; a rollout is as long as a text.
        batch_size: Transitions of a mini-batch.
        part: Mini-batches of stock PPO's update that are measured, if it has more than that.
        targets: The ratio wanted and the one worth aiming for, if there are such.
    """

    workload: Workload
    batch_size: int
    part: int
    targets: tuple[float, float] | None = None


def measure(cases: list[Case], rounds: int) -> Section:
    """Compare in each case; a round measures each side once, stock PPO by one iteration."""
    section = Section()
    body = []
    for case in cases:
        ours, theirs, note = _compare(case, rounds)
        ratio = theirs.seconds / ours.seconds
        of_them = [str(case.workload), str(case.batch_size)]
        body.append([*of_them, "stock", *_cells(theirs), "1"])
        body.append([*of_them, "TokenPPO", *_cells(ours), f"{ratio:.1f}"])
        section.notes.append(f"{case.workload}, mini-batches of {case.batch_size}: {note}")
        if case.targets:
            speeds = [iteration.tokens / iteration.seconds for iteration in (ours, theirs)]
            section.targets.append(
                Target(
                    "stock PPO(TransformerPolicy), end to end",
                    f"{case.workload}, {EPOCHS} epochs, vocabulary {case.workload.vocabulary}",
                    ratio,
                    *case.targets,
                    detail=f"{speeds[0]:,.0f} against {speeds[1]:,.1f} tokens/s",
                )
            )
    header = ["workload", "batch size", "algorithm", "rollout, tokens/s"]
    header += [f"update, tokens/s (of {EPOCHS} epochs)", "end to end, tokens/s", "times"]
    section.figures.append(Figures("Stock PPO against TokenPPO", header, body))
    return section


def _compare(case: Case, rounds: int) -> tuple[Iteration, Iteration, str]:
    """The iteration in the middle of each side, and what was measured."""
    workload, batch_size, part, _ = case
    arguments = {"n_steps": workload.new, "batch_size": batch_size, "n_epochs": EPOCHS}
    ours, theirs = fast(workload, **arguments), stock(workload, **arguments)
    mini_batches = EPOCHS * theirs.tokens // batch_size
    ours.run(2)
    theirs.run_part(1)
    fast_ones, stock_ones = [], []
    for _ in range(rounds):
        fast_ones += ours.run(3)
        stock_ones.append(theirs.run_part(part) if part < mini_batches else theirs.run(1)[0])
    update = "its whole update"
    if part < mini_batches:
        update = f"{part} of the {mini_batches} mini-batches of its update, scaled by their number"
    note = f"{rounds} whole rollouts of stock PPO, each with {update}; {len(fast_ones)} whole "
    return _middle(fast_ones), _middle(stock_ones), note + "iterations of TokenPPO."


def _middle(iterations: list[Iteration]) -> Iteration:
    """The median by seconds; the shorter one of two in the middle."""
    return sorted(iterations, key=lambda i: i.seconds)[(len(iterations) - 1) // 2]


def _cells(iteration: Iteration) -> list[str]:
    speeds = (
        iteration.tokens / iteration.rollout,
        EPOCHS * iteration.tokens / iteration.update,
        iteration.tokens / iteration.seconds,
    )
    return [f"{speed:,.1f}" for speed in speeds]
