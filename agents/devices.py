"""Devices by name."""

from __future__ import annotations

import torch


def known_device(name: str) -> torch.device:
    """The device of that name, "auto" being an accelerator where there is one.

    Raises:
        ValueError: If it cannot be used here, which nothing else says: SB3 would take the CPU.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f"device {name!r} cannot be used here: {reason}. Give auto, cpu, or a GPU that torch "
            "can use."
        ) from error
    return torch.device(name)
