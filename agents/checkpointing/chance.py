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
    # Of this process's GPU alone: to ask the others would put something on each of them.
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "space": space.np_random.bit_generator.state,
    }


def load_random_state(state: Mapping[str, Any], space: spaces.Space[Any]) -> None:
    """Let all of them go on from such a state; a GPU's if there was one, and there is."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for cuda in state["cuda"]:
            torch.cuda.set_rng_state(cuda)
    space.np_random.bit_generator.state = state["space"]
