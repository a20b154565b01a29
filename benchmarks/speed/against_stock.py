"""Stock SB3 PPO against `TokenPPO`, end to end, from the same weights and with the same numbers."""

from __future__ import annotations

from typing import NamedTuple

from speed.hardware import operations
from speed.learners import Iteration, TokensRead, fast, stock
from speed.results import Figures, Section, Target
from speed.workload import Workload

EPOCHS = 4


class Case(NamedTuple):
    """A comparison.

    Attributes:
        workload: What is written; a rollout is as long as a text.
        batch_size: Transitions of a mini-batch.
        part: Mini-batches of stock PPO's update that are measured, if it has more than that.
        rounds: How often each side is measured, stock PPO by one iteration.
        targets: The ratio wanted and the one worth aiming for, if there are such.
    """

    workload: Workload
    batch_size: int
    part: int
    rounds: int = 1
    targets: tuple[float, float] | None = None


def measure(cases: list[Case]) -> Section:
    """Compare in each case."""
    section = Section()
    body = []
    for case in cases:
        ours, theirs, notes = _compare(case)
        ratio = theirs.seconds / ours.seconds
        of_them = [str(case.workload), str(case.batch_size)]
        body.append([*of_them, "stock", *_cells(theirs), "1"])
        body.append([*of_them, "TokenPPO", *_cells(ours), f"{ratio:.1f}"])
        name = f"{case.workload}, mini-batches of {case.batch_size}"
        section.notes += [f"{name}: {note}" for note in notes]
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


def _compare(case: Case) -> tuple[Iteration, Iteration, list[str]]:
    """The iteration in the middle of each side, and what was measured."""
    workload, batch_size, part, rounds, _ = case
    arguments = {"n_steps": workload.new, "batch_size": batch_size, "n_epochs": EPOCHS}
    ours, theirs = fast(workload, **arguments), stock(workload, **arguments)
    mini_batches = EPOCHS * theirs.tokens // batch_size
    with ours.reading() as ours_read:
        ours.run(1)
    ours.run(1)
    with theirs.reading() as stock_read:
        theirs.run_part(1)
    stock_read.update *= mini_batches
    fast_ones, stock_ones = [], []
    for _ in range(rounds):
        fast_ones += ours.run(3)
        stock_ones.append(theirs.run_part(part) if part < mini_batches else theirs.run(1)[0])
    update = "its whole update"
    if part < mini_batches:
        update = f"{part} of the {mini_batches} mini-batches of its update, scaled by their number"
    note = (
        f"{rounds} whole rollouts of stock PPO, each with {update}; {len(fast_ones)} whole "
        "iterations of TokenPPO."
    )
    mine, others = _middle(fast_ones), _middle(stock_ones)
    return mine, others, [note, _arithmetic(workload, mine, others, ours_read, stock_read)]


def _arithmetic(
    workload: Workload,
    ours: Iteration,
    theirs: Iteration,
    ours_read: TokensRead,
    stock_read: TokensRead,
) -> str:
    """What both sides read and compute in an iteration: the ratio that equal speeds would give."""
    # No token is drawn after the last one, so that it need not be read.
    last = workload.prompt + workload.new - 1
    mine = (1 + 3 * EPOCHS) * operations(workload, 0, last, workload.new)
    # Stock PPO reads a whole context for each token, in updates one as long as the longest of
    # the mini-batch.
    written = workload.rows * workload.new
    longest = round(stock_read.update / (EPOCHS * written))
    others = sum(operations(workload, 0, workload.prompt + n, 1) for n in range(workload.new))
    others += 3 * EPOCHS * workload.new * operations(workload, 0, longest, 1)
    speeds = [mine / ours.seconds / 1e9, others / theirs.seconds / 1e9]
    tokens = [read.rollout + read.update for read in (ours_read, stock_read)]
    return (
        f"stock PPO reads {tokens[1]:,} tokens an iteration, padding included ({longest} for each "
        f"token of an epoch), TokenPPO {tokens[0]:,} "
        f"({ours_read.update / (EPOCHS * written):.2f}), {tokens[1] / tokens[0]:.1f} times fewer. "
        f"Operations are {others / mine:.1f} times fewer, which would be the ratio if both "
        f"computed equally fast; stock PPO reaches {speeds[1]:,.1f} GFLOP/s, TokenPPO "
        f"{speeds[0]:,.1f}."
    )


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
