"""Where the networks of rewards are: which files, in which number type."""

from __future__ import annotations

import os
from typing import get_args

from agents.backbone import DType


def version(location: str) -> int:
    """When a file of a model's directory was last written, in nanoseconds; 0 for a hub id."""
    if not os.path.isdir(location):
        return 0
    return max((entry.stat().st_mtime_ns for entry in os.scandir(location)), default=0)


def known_dtype(name: DType) -> DType:
    """A number type of those that we compute in.

    Raises:
        ValueError: If it is none.
    """
    if name not in get_args(DType):
        raise ValueError(f"dtype is one of {', '.join(get_args(DType))}, got {name!r}.")
    return name
