"""TRL's GRPOTrainer against `TokenPPO`, end to end, by tokens of completions a second.

Both write in as many rows at a time from the same weights, read every text as often, and make each
optimizer step over as many tokens: TRL over its batch of texts, ours over a mini-batch as large as
that batch is on average. Where texts end early, a rollout of ours is longer than such a batch, as
rows that are done begin new texts; rollouts of the length of the batch, which leave most texts for
the next one to read again, are measured too.

TRL has no critic; what ours costs is part of our time. TRL writes its texts with `generate` and the
dynamic cache, which was the best of its ways on a CPU: a static cache was as fast, and continuous
batching took four times as long.
"""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from speed.learners import LEARNING_RATE, Iteration, fast
from speed.results import Figures, Section, Target
from speed.trl_grpo import Grpo
from speed.workload import Workload

PASSES = 4


def measure(cases: dict[Workload, tuple[float, float]], rounds: int, iterations: int) -> Section:
    """Compare on each workload, with the ratio wanted and the one worth aiming for.

    Args:
        cases: Workloads and targets.
        rounds: How often each side is measured, in turn.
        iterations: How many iterations a round has.
    """
    section = Section()
    body = []
    for workload, (at_least, aim) in cases.items():
        # As many tokens as a batch of TRL's has on average.
        batch_size = workload.rows * (workload.mean or workload.new)
        steps = {"TokenPPO": workload.new}
        if workload.mean is not None:
            steps["TokenPPO, short rollouts"] = workload.mean
        ours = {
            name: fast(workload, n_steps=n, batch_size=batch_size, n_epochs=PASSES)
            for name, n in steps.items()
        }
        theirs = Grpo(workload, PASSES, LEARNING_RATE)
        for learner in ours.values():
            learner.run(3)
        measured: dict[str, list[tuple[int, float]]] = {"GRPOTrainer": [], **{n: [] for n in ours}}
        parts: list[Iteration] = []
        for _ in range(rounds):
            measured["GRPOTrainer"] += theirs.run(iterations)
            for name, learner in ours.items():
                iterated = learner.run(iterations)
                measured[name] += [(i.tokens, i.seconds) for i in iterated]
                parts += iterated if name == "TokenPPO" else []
        speeds = {name: median(t / s for t, s in samples) for name, samples in measured.items()}
        for name, samples in measured.items():
            tokens = mean(tokens for tokens, _ in samples)
            ratio = speeds[name] / speeds["GRPOTrainer"]
            cells = [f"{tokens:,.0f}", f"{speeds[name]:,.0f}", f"{ratio:.2f}"]
            body.append([str(workload), name, *cells])
        buffer: Any = ours["TokenPPO"].algorithm.rollout_buffer
        read = PASSES * sum(segment.length for segment in buffer.segments)
        rollout, update = (
            median(getattr(i, part) for i in parts) for part in ("rollout", "update")
        )
        section.notes.append(
            f"{workload}: TokenPPO's iteration is {rollout:.2f} s of rollout and {update:.2f} s of "
            f"update, in which {PASSES} passes read {read:,} tokens, prompts among them, forward "
            f"and backward: {read / update:,.0f} a second. TRL reads every text padded to the "
            "longest, and has no critic."
        )
        section.targets.append(
            Target(
                "TRL GRPOTrainer, end to end",
                f"{workload}, {PASSES} passes",
                speeds["TokenPPO"] / speeds["GRPOTrainer"],
                at_least,
                aim,
                detail=f"{speeds['TokenPPO']:,.0f} against {speeds['GRPOTrainer']:,.0f} tokens of "
                "completions a second",
            )
        )
    header = ["workload", "trainer", "tokens an iteration", "tokens/s", "times"]
    section.figures.append(Figures("TRL's GRPOTrainer against TokenPPO", header, body))
    section.notes.append(
        f"Medians of {rounds} x {iterations} iterations, the sides in turn; TRL warms up for one "
        "iteration more in each round."
    )
    return section
