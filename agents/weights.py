"""What training changes in a module, as a safetensors file: nothing in it can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from textgym.files import durable_write

_COPIES = {"q_net_target": "q_net"}
"""Networks that never have a gradient, and follow another one's weights."""


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name; not copies.

    Parameters that are frozen, such as those below adapters, are left out: they are in the model
    that training began with. Tied weights are there once.
    """
    parameters = dict(module.named_parameters())
    buffers = {name: value for name, value in module.state_dict().items() if name not in parameters}
    tied = {value.data_ptr() for value in parameters.values()}
    chosen = {name: value for name, value in parameters.items() if _is_trained(name, parameters)}
    chosen.update({n: v for n, v in buffers.items() if v.data_ptr() not in tied})
    return {name: value.detach() for name, value in chosen.items()}


def save_weights(
    module: nn.Module, path: str | Path, notes: Mapping[str, str] | None = None
) -> None:
    """Write `trained_weights` to a file: under a temporary name, synced, renamed.

    Args:
        module: The module.
        path: The file, in a directory that is there.
        notes: Texts to keep with them, by name; see `read_notes`.
    """
    weights = {name: value.cpu().contiguous() for name, value in trained_weights(module).items()}
    durable_write(path, save(weights, dict(notes or {})))


def read_notes(path: str | Path) -> dict[str, str]:
    """The texts that are kept with weights.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Take the weights of `save_weights`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or of another network; nothing is changed then.
    """
    try:
        given = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    set_weights(module, given, str(path))


@torch.no_grad()
def set_weights(module: nn.Module, given: dict[str, Tensor], what: str) -> None:
    """Copy weights into a module.

    Args:
        module: The module.
        given: As `trained_weights` names them.
        what: Where they come from, for errors.

    Raises:
        ValueError: If they are those of another network; nothing is changed then.
    """
    own = trained_weights(module)
    named = sorted(own.keys() ^ given.keys())
    shaped = [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    if named or shaped:
        name = (named or sorted(shaped))[0]
        has, wants = (
            f"{tuple(some[name].shape)}" if name in some else "nothing" for some in (given, own)
        )
        raise ValueError(
            f"{what} holds the weights of another network: for {name!r} it has {has}, and {wants} "
            "is expected there. Load it with the settings that it was saved with."
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])


def _is_trained(name: str, parameters: dict[str, nn.Parameter]) -> bool:
    network, _, rest = name.partition(".")
    original = f"{_COPIES[network]}.{rest}" if network in _COPIES else name
    return parameters[original].requires_grad
