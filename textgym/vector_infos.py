"""Infos as Gymnasium's vector environments lay them out.

What is known of k rows comes in columns by name: arrays (k,) of float64 or bool, lists of k other
objects, or again columns by name. Gymnasium wants arrays with a slot for each of all n rows, and
beside each key a mask `_key` that says of which rows it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.dynamics import Rows, index


def select(columns: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """The entries of some rows in columns of arrays."""
    return {
        key: select(column, rows) if isinstance(column, dict) else column[rows]
        for key, column in columns.items()
    }


def of_all(columns: Mapping[str, Any], everyone: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos of what is known of all rows: columns of arrays as they are, each with a full mask.

    Args:
        columns: Arrays that nobody else writes to.
        everyone: The full mask, bool (n,); copied.
    """
    infos: dict[str, Any] = {}
    for key, column in columns.items():
        infos[key] = of_all(column, everyone) if isinstance(column, dict) else column
        infos["_" + key] = everyone.copy()
    return infos


def tell(infos: dict[str, Any], rows: Rows, columns: Mapping[str, Any], num_envs: int) -> None:
    """Add what is known of `rows`, int (k,), to the infos of `num_envs` rows."""
    where = index(rows, num_envs)
    told = np.zeros(num_envs, np.bool_)
    told[where] = True
    _merge(infos, columns, where, told)


def _merge(
    infos: dict[str, Any],
    columns: Mapping[str, Any],
    where: Rows | slice,
    told: NDArray[np.bool_],
) -> None:
    for key, column in columns.items():
        if key in infos:
            infos["_" + key] |= told
        else:
            infos[key] = {} if isinstance(column, dict) else _blank(column, len(told))
            infos["_" + key] = told.copy()
        if isinstance(column, dict):
            _merge(infos[key], column, where, told)
        else:
            infos[key][where] = column


def _blank(column: list[Any] | NDArray[Any], length: int) -> NDArray[Any]:
    """What Gymnasium puts where a value such as those of `column` is not known."""
    if isinstance(column, list):
        return np.empty(length, object)  # which is full of None
    return np.zeros(length, column.dtype)
