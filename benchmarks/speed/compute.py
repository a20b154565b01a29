"""Rollout, its readings and update as shares of what the machine's matrix products could do."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from agents.reader import CachedReader
from speed.hardware import matrix_product_peak, operations
from speed.learners import Learner, PhaseTimer, fast
from speed.results import Figures, Section
from speed.stopwatch import Stopwatch, replaced
from speed.workload import Workload

EPOCHS = 4


def measure(workloads: list[Workload], iterations: int) -> Section:
    """Operations a second of each workload against the peak, measured before and after it.

    Args:
        workloads: All their texts must be equally long.
        iterations: Of which medians and sums count.

    Raises:
        RuntimeError: If anything is faster than the machine, or takes longer than what it is a
            part of: then not all of the work was timed.
    """
    body = []
    for workload in workloads:
        batch_size = workload.rows * workload.new
        learner = fast(workload, n_steps=workload.new, batch_size=batch_size, n_epochs=EPOCHS)
        learner.run(2)
        before = matrix_product_peak(workload.device, workload.dtype)
        phases, seconds, passes = _readings(learner, workload, iterations)
        peak = max(before, matrix_product_peak(workload.device, workload.dtype))
        # No token is drawn after the last one, so that an update need not read it.
        forward = operations(workload, 0, workload.prompt + workload.new - 1, workload.new)
        prompts = operations(workload, 0, workload.prompt, 1)
        end = workload.prompt + passes
        decoded = operations(workload, workload.prompt, end, passes)
        speeds = {
            "prompts": iterations * prompts / seconds["prompts"],
            "decode": iterations * decoded / seconds["decode"],
            "whole rollout": forward / median(phases.rollouts),
            "update": EPOCHS * 3 * forward / median(phases.updates),
        }
        for what, speed in speeds.items():
            if speed > peak:
                raise RuntimeError(
                    f"{what} of {workload}: {speed / 1e9:.1f} GFLOP/s, more than the peak of "
                    f"{peak / 1e9:.1f}. Not all of its work was timed: see where agents/ does it."
                )
        milliseconds = 1e3 * seconds["decode"] / iterations / passes
        cells = [f"{speed / 1e9:.1f} ({100 * speed / peak:.1f}%)" for speed in speeds.values()]
        body.append([str(workload), f"{peak / 1e9:.0f}", f"{milliseconds:.2f}", *cells])
    header = ["workload", "matrix product peak, GFLOP/s", "decode step, ms"]
    header += ["prompts, GFLOP/s (of peak)", "decode (of peak)", "whole rollout (of peak)"]
    header += ["update (of peak)"]
    return Section(
        figures=[Figures(f"Arithmetic, {workloads[0].dtype}", header, body)],
        notes=[
            "Operations are those that the model needs: matrices and attention, three times the "
            "forward pass for an update, none for recomputing. A decode step is one reading of a "
            "token of every row; the whole rollout is all that is done: prompts, "
            "decoding, drawing, environment, reward, value."
        ],
    )


def _readings(
    learner: Learner, workload: Workload, iterations: int
) -> tuple[PhaseTimer, dict[str, float], int]:
    """Phases; seconds of reading prompts and of decoding; passes of decoding in a rollout."""
    phases, watch = PhaseTimer(), Stopwatch(workload.device)
    original = CachedReader._read
    passes: Counter[str] = Counter()

    def read(reader: Any, going_on: Any, beginning: Any) -> None:
        if len(going_on) + len(beginning) != workload.rows or (len(going_on) and len(beginning)):
            # Portions of prompts too large for one pass are not what this section measures.
            raise RuntimeError(
                f"{workload}: a pass has {len(going_on)} rows that go on and {len(beginning)} that "
                f"begin; expected all {workload.rows} to do the same. Take texts of one length."
            )
        label = "prompts" if len(beginning) else "decode"
        passes[label] += 1
        with watch.span(label):
            original(reader, going_on, beginning)

    with replaced({(CachedReader, "_read"): read}):
        learner.learn(iterations, phases)
    # The last token of a text is read only where somebody asks what comes after it.
    expected = {"prompts": {iterations}, "decode": set()}
    expected["decode"] = {iterations * (workload.new - 1), iterations * workload.new}
    for label, numbers in expected.items():
        if passes[label] not in numbers:
            raise RuntimeError(
                f"{workload}: {passes[label]} passes of {label} in {iterations} rollouts, expected "
                f"one of {sorted(numbers)}. The reader reads in another way now."
            )
    timed, whole = sum(watch.seconds.values()), sum(phases.rollouts)
    if timed > whole:
        raise RuntimeError(f"{workload}: {timed:.3f} s of reading in {whole:.3f} s of rollouts.")
    return phases, dict(watch.seconds), passes["decode"] // iterations
