"""Rollout, decoding and update as shares of what the machine's matrix products could do."""

from __future__ import annotations

from statistics import median

from agents.sampler import Sampler
from speed.hardware import matrix_product_peak, operations
from speed.learners import PhaseTimer, fast
from speed.results import Figures, Section
from speed.stopwatch import Stopwatch, replaced
from speed.workload import Workload

EPOCHS = 4


def measure(workloads: list[Workload], iterations: int) -> Section:
    """Operations a second of each workload against the peak, measured before and after it."""
    body = []
    for workload in workloads:
        batch_size = workload.rows * workload.new
        learner = fast(workload, n_steps=workload.new, batch_size=batch_size, n_epochs=EPOCHS)
        learner.run(2)
        before = matrix_product_peak()
        phases, watch = PhaseTimer(), Stopwatch()
        decode = watch.timed("decode", Sampler.append)
        with replaced({(Sampler, "append"): decode}):
            learner.learn(iterations, phases)
        peak = max(before, matrix_product_peak())
        length = workload.prompt + workload.new
        # No token is drawn after the last one, so that an update need not read it.
        forward = operations(workload, 0, length - 1, workload.new)
        decoded = operations(workload, workload.prompt, length, workload.new)
        speeds = (
            decoded * iterations / watch.seconds["decode"],
            forward / median(phases.rollouts),
            EPOCHS * 3 * forward / median(phases.updates),
        )
        milliseconds = 1e3 * watch.seconds["decode"] / iterations / workload.new
        cells = [f"{speed / 1e9:.1f} ({100 * speed / peak:.1f}%)" for speed in speeds]
        body.append([str(workload), f"{peak / 1e9:.0f}", f"{milliseconds:.2f}", *cells])
    header = ["workload", "matrix product peak, GFLOP/s", "decode step, ms"]
    header += ["decode, GFLOP/s (of peak)", "whole rollout (of peak)", "update (of peak)"]
    return Section(
        figures=[Figures("Arithmetic, float32", header, body)],
        notes=[
            "Operations are those that the model needs: matrices and attention, three times the "
            "forward pass for an update, none for recomputing. A decode step is the transformer's "
            "work on one token of every row; the whole rollout is all that is done: prompts, "
            "decoding, drawing, environment, reward, value."
        ],
    )
