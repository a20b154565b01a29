"""What training changes in a module, as a safetensors file: nothing in it can run code."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents.distributed.whole import set_whole, whole
from textgym.files import durable_file

_COPIES = {"q_net_target": "q_net"}
"""Networks that never have a gradient, and follow another one's weights."""


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name; not copies.

    Parameters that are frozen, such as those below adapters, are left out: they are in the model
    that training began with. Tied weights are there once. Of a sharded module they are sharded.
    """
    parameters = dict(module.named_parameters())
    chosen = {name: value for name, value in parameters.items() if _is_trained(name, parameters)}
    return {name: value.detach() for name, value in {**chosen, **_buffers(module)}.items()}


def save_weights(
    module: nn.Module,
    path: str | Path,
    notes: Mapping[str, str] | None = None,
    *,
    here: bool = True,
) -> None:
    """Write `trained_weights` to a file: under a temporary name, synced, renamed.

    Args:
        module: The module. Of one that is sharded the whole is written, and every process calls
            this.
        path: The file, in a directory that is there.
        notes: Texts to keep with them, by name; see `read_notes`.
        here: Whether this process is the one that writes.
    """
    weights = whole(trained_weights(module), here)
    if here:
        save_tensors(weights, path, notes)


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, notes: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file: under a temporary name, synced, renamed.

    Those on the CPU are written from where they are: no copy of all is made in memory.

    Args:
        tensors: By name.
        path: The file, in a directory that is there.
        notes: Texts to keep with them, by name.

    Raises:
        OSError: If it cannot be written; the file is what it was then.
    """
    on_cpu: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        on_cpu[name] = tensor.clone() if storage in storages else tensor  # the format shares none
        storages.add(storage)
    with durable_file(path) as temporary:
        try:
            save_file(on_cpu, temporary, dict(notes) if notes else None)
        except SafetensorError as error:
            reason = re.search(r"\(os error (\d+)\)", str(error))
            if reason is None:
                raise
            number = int(reason[1])
            raise OSError(number, os.strerror(number), str(path)) from error


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


def set_weights(module: nn.Module, given: dict[str, Tensor], what: str) -> None:
    """Copy weights into a module, of which each process has all; sharded or not.

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
        set_whole(tensor, given[name])


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module's `state_dict` has and that are no parameters, by name.

    That itself would take a sharded module apart that was gathered.
    """
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules(remove_duplicate=False)
        for name, value in part.named_buffers(recurse=False, remove_duplicate=False)
        if name not in part._non_persistent_buffers_set
    }


def _is_trained(name: str, parameters: dict[str, nn.Parameter]) -> bool:
    network, _, rest = name.partition(".")
    original = f"{_COPIES[network]}.{rest}" if network in _COPIES else name
    return parameters[original].requires_grad
