"""What launchers tell the processes that they begin, `torchrun` and `accelerate launch`."""

from __future__ import annotations

import os

_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether a launcher began this process together with others."""
    return all(name in os.environ for name in _TOLD) and int(os.environ["WORLD_SIZE"]) > 1


def launcher_shards() -> bool:
    """Whether `accelerate launch --use_fsdp` asked for a model in parts, one on each process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
