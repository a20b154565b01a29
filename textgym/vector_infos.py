"""Infos as Gymnasium's vector environments lay them out.

What is known of some rows comes in columns by name, with k entries for k rows: arrays of float64 or
bool, lists of other objects, or again columns by name. Gymnasium wants arrays with a slot for every row,
and beside each key a mask `_key` that says for which rows it is known.
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


def tell(infos: dict[str, Any], rows: Rows, columns: Mapping[str, Any], num_envs: int) -> None:
    """Add what is known of `rows`, int (k,), to the infos of `num_envs` rows.

    Arrays of columns may become part of the infos; nobody else should write to them.
    """
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
        is_new = key not in infos
        if isinstance(column, dict):
            _merge(infos.setdefault(key, {}), column, where, told)
        elif is_new and isinstance(where, slice) and isinstance(column, np.ndarray):
            infos[key] = column
        else:
            if is_new:
                infos[key] = _blank(column, len(told))
            infos[key][where] = column
        infos["_" + key] = told.copy() if is_new else infos["_" + key] | told


def _blank(column: list[Any] | NDArray[Any], length: int) -> NDArray[Any]:
    """What Gymnasium puts where a value such as those of `column` is not known."""
    if isinstance(column, list):
        return np.full(length, None, object)
    return np.zeros(length, column.dtype)
