"""What launchers tell the processes that they begin, `torchrun` and `accelerate launch`."""

from __future__ import annotations

import os

ALONE = (
    "accelerate was asked for several processes and began one, as it does without GPUs. On CPUs "
    "add --multi_gpu (it means: by torch.distributed), or take torchrun --nproc-per-node."
)
"""What is said to who is `launched_alone`."""

_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether a launcher began this process together with others."""
    return all(name in os.environ for name in _TOLD) and int(os.environ["WORLD_SIZE"]) > 1


def launched_alone() -> bool:
    """Whether `accelerate launch` was asked for several processes and began one, this one.

    So it does on a machine without accelerators, unless it is told `--multi_gpu`.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    return by_accelerate and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ


def launcher_shards() -> bool:
    """Whether `accelerate launch --use_fsdp` asked for a model in parts, one on each process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
