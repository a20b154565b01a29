"""Whether there is room for what a run will write, before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from agents.weights import trained_weights

_MOMENTS = 2
"""Numbers that Adam keeps for each weight."""


def bytes_of_run(policy: nn.Module, keep: int) -> int:
    """About how much a run writes: weights and moments of all checkpoints, and the model.

    Args:
        policy: What is trained.
        keep: How many checkpoints are kept; there is one more while it is written.
    """
    trained = sum(t.numel() * t.element_size() for t in trained_weights(policy).values())
    whole = sum(p.numel() * p.element_size() for p in policy.parameters())
    return trained + (keep + 1) * (1 + _MOMENTS) * trained + 2 * whole


def check_room(directory: Path, needed: int) -> None:
    """Raise if a disk has no room for what a run writes, and has not written yet.

    Args:
        directory: Of the run.
        needed: Bytes of all that it writes.

    Raises:
        OSError: If so; the message has the cure.
    """
    needed -= sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"there are {_in_words(free)} left where {directory} is, and this run may write "
            f"{_in_words(needed)}: the model, and checkpoints with the optimizer's numbers. Make "
            "room, give an --output elsewhere, or train adapters (--lora-rank 16)."
        )


def _in_words(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
