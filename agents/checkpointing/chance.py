"""The state of all global random generators, and of those of spaces."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces


def random_state(space: spaces.Space[Any]) -> dict[str, Any]:
    """The state of Python's, numpy's and torch's generators, and of a space's own.

    Args:
        space: The actions, of which Q-learning draws some by chance.
    """
    name, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], *rest),
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
        "space": space.np_random.bit_generator.state,
    }


def load_random_state(state: Mapping[str, Any], space: spaces.Space[Any]) -> None:
    """Let all of them go on from such a state; of GPUs those that there are."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda, device)
    space.np_random.bit_generator.state = state["space"]
