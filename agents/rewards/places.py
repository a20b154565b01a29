"""Where the networks of rewards are: which files, on which device, in which number type."""

from __future__ import annotations

import os
from typing import get_args

import torch

from agents.backbone import DType
from agents.pretraining.model import resolve_device


def version(location: str) -> int:
    """When a file of a model's directory was last written, in nanoseconds; 0 for a hub id."""
    if not os.path.isdir(location):
        return 0
    return max((entry.stat().st_mtime_ns for entry in os.scandir(location)), default=0)


def known_device(name: str) -> torch.device:
    """The device of that name, "auto" being an accelerator where there is one.

    Raises:
        ValueError: If there is none of that name.
    """
    try:
        return resolve_device(name)
    except RuntimeError as error:
        raise ValueError(
            f'device is "auto", "cpu", "cuda", "cuda:1", ..., got {name!r}.'
        ) from error


def known_dtype(name: DType) -> DType:
    """A number type of those that we compute in.

    Raises:
        ValueError: If it is none.
    """
    if name not in get_args(DType):
        raise ValueError(f"dtype is one of {', '.join(get_args(DType))}, got {name!r}.")
    return name
