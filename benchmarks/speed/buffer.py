"""Bytes that a rollout buffer keeps for a token, beside the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from speed.learners import Learner, fast, stock
from speed.results import Figures, Section, Target
from speed.workload import Workload

PROMPT_BYTES = 4
"""Of each token of a prompt: the least that a whole number of a vocabulary's size is kept in."""


def measure(workload: Workload, at_most: float) -> Section:
    """Fill the buffers of both algorithms, with rollouts that end with a text and amid one."""
    section = Section()
    body = []
    for what, steps in (("whole texts", workload.new), ("cut texts", workload.new * 3 // 4)):
        ours, theirs = (
            side(workload, n_steps=steps, batch_size=steps * workload.rows, n_epochs=1)
            for side in (fast, stock)
        )
        ours.run(2)  # the second rollout goes on with texts that the first one cut
        ours_bytes, stock_bytes = _bytes(ours), _bytes(theirs)
        prompts = PROMPT_BYTES * workload.prompt * workload.rows / ours.tokens
        beside = ours_bytes - prompts
        body.append([what, f"{ours_bytes:.1f}", f"{beside:.1f}", f"{stock_bytes:.1f}"])
        if steps == workload.new:
            detail = f"bytes, where stock SB3 keeps {stock_bytes:,.0f} with the prompt"
            section.targets.append(
                Target(
                    "buffer, bytes a token beside the prompt",
                    str(workload),
                    beside,
                    at_most,
                    upper=True,
                    detail=detail,
                )
            )
    header = ["rollout", "bytes a token", "beside the prompt", "stock SB3, bytes a token"]
    section.figures.append(Figures("Rollout buffer", header, body))
    section.notes.append(
        "All arrays that can be reached from the buffer after a rollout count. Where a rollout "
        "ends amid texts, the next one keeps what was written of them before."
    )
    return section


def _bytes(learner: Learner) -> float:
    """Bytes that the rollout buffer keeps for each token, prompts included."""
    buffer: Any = learner.algorithm.rollout_buffer
    owners = {id(array): array.nbytes for array in _arrays(vars(buffer), set())}
    return sum(owners.values()) / learner.tokens


def _arrays(value: Any, seen: set[int]) -> Iterator[Any]:
    """All arrays in a nest of containers and of objects that hold some; of a view its owner."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value.base if isinstance(value.base, np.ndarray) else value
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _arrays(item, seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _arrays(item, seen)
