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

from textgym.dynamics import Rows


def lay_out(columns: Mapping[str, Any], told: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos from columns of arrays of all rows.

    Args:
        columns: Arrays (n,), which become part of the infos.
        told: Of which rows to tell, bool (n,); the arrays are 0 elsewhere.
    """
    infos: dict[str, Any] = {}
    for key, column in columns.items():
        infos[key] = lay_out(column, told) if isinstance(column, dict) else column
        infos["_" + key] = told.copy()
    return infos


def take_out(columns: Mapping[str, Any], which: NDArray[np.bool_]) -> dict[str, Any]:
    """Some of the entries in columns of k values, bool (k,)."""
    return {
        key: take_out(column, which) if isinstance(column, dict) else column[which]
        for key, column in columns.items()
    }


def tell(infos: dict[str, Any], rows: Rows, columns: Mapping[str, Any], num_envs: int) -> None:
    """Add what is known of `rows`, int (k,), to the infos of `num_envs` rows."""
    told = np.zeros(num_envs, np.bool_)
    told[rows] = True
    _merge(infos, columns, rows, told)


def _merge(
    infos: dict[str, Any], columns: Mapping[str, Any], rows: Rows, told: NDArray[np.bool_]
) -> None:
    for key, column in columns.items():
        if key in infos:
            infos["_" + key] |= told
        else:
            infos[key] = {} if isinstance(column, dict) else _blank(column, len(told))
            infos["_" + key] = told.copy()
        array = infos[key]
        if isinstance(column, dict):
            _merge(array, column, rows, told)
        elif isinstance(column, list):
            for row, value in zip(rows.tolist(), column, strict=True):
                array[row] = value
        else:
            array[rows] = column


def _blank(column: list[Any] | NDArray[Any], length: int) -> NDArray[Any]:
    """What Gymnasium puts where a value such as those of `column` is not known."""
    if isinstance(column, list):
        return np.empty(length, object)  # which is full of None
    return np.zeros(length, column.dtype)
