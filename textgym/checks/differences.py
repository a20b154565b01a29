"""Where two nested values differ: arrays, dicts, tuples, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Difference: TypeAlias = tuple[str, Any, Any]
"""Where two values differ, what was expected there, and what was found."""


def difference(where: str, expected: Any, actual: Any) -> Difference | None:
    """The first place where two values differ, and what stands there; None if they are equal.

    Types, dtypes, shapes and keys count; a NaN is equal to a NaN.
    """
    if type(expected) is not type(actual):
        return f"type of {where}", type(expected).__name__, type(actual).__name__
    if isinstance(expected, np.ndarray):
        return _array_difference(where, expected, actual)
    if isinstance(expected, Mapping):
        if expected.keys() != actual.keys():
            return f"set of keys of {where}", sorted(expected, key=repr), sorted(actual, key=repr)
        pairs = [(f"{where}[{key!r}]", expected[key], actual[key]) for key in expected]
        return _first_difference(pairs)
    if isinstance(expected, (tuple, list)):
        if len(expected) != len(actual):
            return f"length of {where}", len(expected), len(actual)
        both = enumerate(zip(expected, actual, strict=True))
        return _first_difference((f"{where}[{i}]", one, other) for i, (one, other) in both)
    equal = expected == actual or (expected != expected and actual != actual)
    return None if equal else (where, expected, actual)


def _array_difference(
    where: str, expected: NDArray[Any], actual: NDArray[Any]
) -> Difference | None:
    if expected.dtype != actual.dtype:
        return f"dtype of {where}", expected.dtype, actual.dtype
    if expected.shape != actual.shape:
        return f"shape of {where}", expected.shape, actual.shape
    places: Iterable[tuple[int, ...]] = np.ndindex(expected.shape)
    if expected.dtype != object:
        equal = expected == actual
        if equal.all():
            return None
        # A NaN is equal to nothing, itself included.
        unequal = ~equal & ((expected == expected) | (actual == actual))
        places = map(tuple, np.argwhere(unequal).tolist())
    return _first_difference((f"{where}{list(p)}", expected[p], actual[p]) for p in places)


def _first_difference(pairs: Iterable[tuple[str, Any, Any]]) -> Difference | None:
    return next(filter(None, (difference(*pair) for pair in pairs)), None)
