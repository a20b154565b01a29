"""Rollout and update as shares of what the machine's matrix products could do."""

from __future__ import annotations

from statistics import median

from speed.hardware import forward_operations, matrix_product_peak
from speed.learners import fast
from speed.results import Figures, Section
from speed.workload import Workload


def measure(workloads: list[Workload], iterations: int) -> Section:
    """Operations a second of each workload against the peak, measured before and after it."""
    body = []
    for workload in workloads:
        learner = fast(
            workload, n_steps=workload.new, batch_size=workload.rows * workload.new, n_epochs=4
        )
        learner.run(2)
        before = matrix_product_peak()
        done = learner.run(iterations)
        peak = max(before, matrix_product_peak())
        forward = forward_operations(workload)
        speeds = (
            forward / median(i.rollout for i in done),
            4 * 3 * forward / median(i.update for i in done),
        )
        cells = [f"{speed / 1e9:.1f} ({100 * speed / peak:.1f}%)" for speed in speeds]
        body.append([str(workload), f"{forward / 1e9:.2f}", f"{peak / 1e9:.0f}", *cells])
    header = ["workload", "one forward pass, GFLOP", "matrix product peak, GFLOP/s"]
    header += ["whole rollout, GFLOP/s (of peak)", "update, GFLOP/s (of peak)"]
    return Section(
        figures=[Figures("Arithmetic, float32", header, body)],
        notes=[
            "Operations are those that the model needs: matrices and attention, three times the "
            "forward pass for an update, none for recomputing. The rollout's time is that of "
            "everything in it: decoding, drawing, environment, reward, value."
        ],
    )
