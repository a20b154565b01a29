"""Nested Python data with tensors in it as two files: JSON, and safetensors for the tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agents.weights import save_tensors
from textgym.files import durable_write

_DAMAGE = (SafetensorError, ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""What comes of reading files that are no such tree."""

DATA, TENSORS = "data.json", "tensors.safetensors"


def save_tree(tree: Mapping[str, Any], directory: Path, name: str = "") -> None:
    """Write a mapping to a directory.

    What it may hold: None, booleans, numbers (infinite ones, too), strings, lists, tuples, mappings
    with keys of these, arrays and tensors.

    Args:
        tree: The mapping.
        directory: Where its files go.
        name: What the files' names begin with, where a directory holds several trees.

    Raises:
        TypeError: If something else is in it; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    data = _encoded(tree, "", tensors)
    # The data comes last: where it is, the tensors are whole.
    save_tensors(tensors, directory / f"{name}{TENSORS}")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=None)
    durable_write(directory / f"{name}{DATA}", text.encode("utf-8", "surrogatepass"))


def load_tree(directory: Path, name: str = "") -> dict[str, Any]:
    """Read what `save_tree` wrote; tensors are on the CPU.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the files are damaged.
    """
    path = directory / f"{name}{DATA}"
    try:
        data = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        tensors = load_file(directory / f"{name}{TENSORS}")
        tree: dict[str, Any] = _decoded(data, tensors)
        if not isinstance(data, dict):
            raise TypeError(f"expected a mapping, got a {type(data).__name__}")
    except FileNotFoundError:
        raise
    except (*_DAMAGE, OSError) as error:
        raise ValueError(f"{path} and the tensors beside it cannot be read: {error}.") from error
    return tree


def _encoded(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON knows it, its tensors being put into `tensors` by where they were."""
    if isinstance(value, np.generic):  # a mean of float32 is not one of float64
        return {"$numpy": [value.dtype.str, _encoded(value.item(), where, tensors)]}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype != np.object_):
        kind = "$tensor" if isinstance(value, Tensor) else "$array"
        name = str(len(tensors))
        if isinstance(value, np.ndarray):  # copied only where torch could not take it
            value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        tensors[name] = value
        return {kind: name}
    if isinstance(value, (list, tuple)):
        items = [_encoded(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        pairs = [(key, _encoded(item, f"{where}.{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(pairs)
        return {"$mapping": [[_encoded(key, where, tensors), item] for key, item in pairs]}
    raise TypeError(
        f"{where[1:]!r} is a {type(value).__name__}, and only numbers, strings, lists, mappings, "
        "arrays and tensors can be saved."
    )


def _decoded(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decoded(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    content: Any
    kind, content = next(iter(data.items()), ("", None))
    if kind == "$float":
        return float(content)
    if kind == "$numpy":
        dtype, item = content
        return np.dtype(dtype).type(_decoded(item, tensors))
    if kind == "$array":
        return tensors[content].numpy()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$tuple":
        return tuple(_decoded(item, tensors) for item in content)
    if kind == "$mapping":
        return {_decoded(key, tensors): _decoded(item, tensors) for key, item in content}
    return {key: _decoded(item, tensors) for key, item in data.items()}
