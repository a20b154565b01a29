"""Tensors of which each process holds a part, as whole ones; and the other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def whole(tree: Any, here: bool = True) -> Any:
    """Make whole tensors of sharded ones, one after another, and leave all others as they are.

    Every process calls it, with what has the same structure.

    Args:
        tree: A tensor, or nested mappings, lists and tuples of them and of anything else, such as
            an optimizer's `state_dict()`.
        here: Whether this process is to have the whole tensors; where it is not they are empty.

    Returns:
        The same structure, what was sharded being on the CPU.
    """
    if isinstance(tree, DTensor):
        tensor = tree.full_tensor().detach()
        return tensor.cpu() if here else tensor.new_empty(0)
    if isinstance(tree, Mapping):
        return {key: whole(value, here) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(whole(value, here) for value in tree)
    return tree


@torch.no_grad()
def set_whole(tensor: Tensor, given: Tensor) -> None:
    """Copy a whole tensor, which every process has, into one that may be sharded.

    Nothing is sent.
    """
    if not isinstance(tensor, DTensor):
        tensor.copy_(given)
        return
    # No source: each process takes its part of what it has itself.
    mesh, placements = tensor.device_mesh, tensor.placements
    parts = distribute_tensor(given, mesh, placements, src_data_rank=None)
    tensor.to_local().copy_(parts.to_local())


def load_whole(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Let an optimizer go on from a whole `state_dict()`, its parameters sharded or not.

    Every process has the whole, and nothing is sent.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    in_parts = {i: in_parts_of(parameters[i], of_one) for i, of_one in state["state"].items()}
    optimizer.load_state_dict({**state, "state": in_parts})


def in_parts_of(parameter: Tensor, state: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer knows of a parameter, sharded as that is.

    Args:
        parameter: A parameter, sharded or not.
        state: Whole tensors by name, and numbers.
    """
    parts = dict(state)
    if isinstance(parameter, DTensor):
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                parts[name] = torch.empty_like(parameter.detach(), dtype=value.dtype)
                set_whole(parts[name], value)
    return parts
