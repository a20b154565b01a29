"""What launchers tell the processes that they begin, `torchrun` and `accelerate launch`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether a launcher began this process together with others."""
    return all(name in os.environ for name in _TOLD) and int(os.environ["WORLD_SIZE"]) > 1


def restarted() -> bool:
    """Whether a launcher began this process anew, after one of them had ended (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def this_launch() -> str:
    """The launcher that began this process, which stays the same when it begins it anew."""
    return f"{os.getppid()} on {socket.gethostname()}"


def misunderstandings() -> Iterator[str]:
    """What `accelerate launch` was asked for and is not done, each with what to do instead."""
    asked = os.environ
    precision = asked.get("ACCELERATE_MIXED_PRECISION")
    # So it does on a machine without accelerators.
    if precision is not None and "MASTER_PORT" in asked and "WORLD_SIZE" not in asked:
        yield (
            "accelerate was asked for several processes and began one, as it does without GPUs. On "
            "CPUs add --multi_gpu (it means: by torch.distributed), or take torchrun."
        )
    if precision not in (None, "no"):
        yield (
            f"accelerate's mixed_precision {precision} is not looked at: --dtype says in which "
            "type the transformer computes, float32 or bfloat16."
        )
    if int(asked.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", 1)) > 1:
        yield "accelerate's gradient accumulation is not looked at: give a larger --batch-size."


def check_asked(device: str) -> None:
    """Raise if `accelerate launch` was asked for what is not done and cannot be passed over.

    Args:
        device: The type of that on which this process computes.

    Raises:
        ValueError: If it was, with what to do instead.
    """
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(
            "DeepSpeed is not used here. Launch without --use_deepspeed, and with a model that is "
            "too large to be trained on one device give --shard."
        )
    if _is_set("ACCELERATE_USE_CPU") and device != "cpu":
        raise ValueError(
            f"accelerate launch was told to take the CPU, and the device is {device}. Give "
            "--device cpu (in a script device='cpu'), or launch without --cpu."
        )


def local_rank() -> int:
    """Which of the processes of its machine this one is, where a launcher began several."""
    return int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))


def launcher_shards() -> bool:
    """Whether `accelerate launch --use_fsdp` asked for a model in parts, one on each process."""
    return _is_set("ACCELERATE_USE_FSDP")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() == "true"
