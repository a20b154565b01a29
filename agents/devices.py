"""Devices by name."""

from __future__ import annotations

import os

import torch

from agents.distributed.launcher import launched, local_rank


def known_device(name: str) -> torch.device:
    """The device of that name, "auto" being an accelerator where there is one.

    Raises:
        ValueError: If it cannot be used here, which nothing else says: SB3 would take the CPU.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    gpu = own_gpu() if name == "cuda" else None
    try:
        if gpu is not None:
            torch.cuda.set_device(gpu)  # or all would begin to use the first
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f"device {name!r} cannot be used here: {reason}. Give auto, cpu, or a GPU that torch "
            "can use."
        ) from error
    return torch.device(name)


def own_gpu() -> int | None:
    """Which GPU "cuda" is to mean here, if a launcher began several processes and there are GPUs.

    One who sees a single GPU was given that, as by Slurm, whichever of the processes it is.
    """
    count = torch.cuda.device_count() if launched() else 0
    return local_rank() % count if count else None


def check_gpus() -> None:
    """Raise if a launcher began more processes on this machine than it has GPUs.

    If each sees one GPU, only they together can tell whether it is the same: NCCL does.

    Raises:
        ValueError: If there are too few.
    """
    wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if wanted > there > 1:
        raise ValueError(
            f"{wanted} processes of this machine are to train on its {there} GPUs, and each takes "
            f"one of its own. Begin {there} (torchrun --nproc-per-node {there}; accelerate launch "
            "--num_processes, of all machines), or give --device cpu."
        )
