"""What a run file does not say: what was chosen, what suits the algorithm, and the machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import textgym
from agents.config import RunConfig
from agents.distributed.launcher import this_launch
from agents.distributed.processes import join
from textgym.files import atomic_write

_PACKAGES = ("torch", "transformers", "stable-baselines3", "gymnasium", "tokenizers", "numpy")


def write_about(path: Path, config: RunConfig, device: torch.device) -> None:
    """Write what a report tells beside the settings.

    Args:
        path: The file, JSON: "changed", the names of settings that are not their defaults;
            "settled", what the algorithm takes in place of settings that are None; "machine" and
            "versions", in words by name; "launch", who began the process.
        config: The settings.
        device: Where the policy is.
    """
    changed = [
        field.name
        for field in dataclasses.fields(config)
        if field.name != "output" and getattr(config, field.name) != field.default
    ]
    about = {
        "changed": changed,
        "settled": {name: value for name, value in _settled(config).items() if value is not None},
        "machine": {**_machine(device), "processes": str(join(config.device).count)},
        "versions": {
            "textgym": textgym.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "launch": this_launch(),
    }
    atomic_write(path, json.dumps(about, indent=1, default=str) + "\n")


def _settled(config: RunConfig) -> dict[str, Any]:
    """What the algorithm takes in place of settings that are None."""
    return {
        name: config.of_algorithm(name)
        for name, value in config.as_data().items()
        if value is None and name in config.algorithm.defaults
    }


def _machine(device: torch.device) -> dict[str, str]:
    machine = {
        "system": platform.platform(terse=True),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": str(device),
    }
    if device.type == "cuda":
        machine["device"] = f"{device} ({torch.cuda.get_device_name(device)})"
    return machine
