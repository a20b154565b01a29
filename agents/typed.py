"""Settings of the types that their dataclass says, from files and from Python."""

from __future__ import annotations

import types
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from textgym.arguments import is_number


def check_types(settings: Any) -> None:
    """Raise unless each setting of a dataclass has the type that it says.

    Raises:
        TypeError: With the value, and what was expected.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if not _fits(value, hint):
            raise TypeError(f"{name} is {_described(hint)}, got {value!r}.")


def typed(value: Any, hint: Any) -> Any:
    """A value of YAML as a field's type wants it, or a TypeError that says what that is."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        for choice in arguments:
            try:
                return typed(value, choice)
            except TypeError:
                continue
        raise TypeError(_described(hint))
    if get_origin(hint) is Literal and value in arguments:
        return value
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(typed(item, arguments[0]) for item in value)
    if hint is Any and isinstance(value, (str, dict, list)):
        return value
    if hint is float:
        return _number(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise TypeError(_described(hint))


def is_list(hint: Any) -> bool:
    """Whether a field takes a list."""
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))


def _number(value: Any) -> float:
    # YAML takes 3e-4, without a point, for text.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise TypeError(_described(float))


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of strings"
    words: dict[Any, str] = {
        Any: "a name, a mapping or a list",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a string",
        Path: "a path",
        type(None): "null",
    }
    return words[hint]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of Python is of a field's type; of one that is not known here, any is."""
    if hint is Any:  # which is a class from Python 3.11 on
        return True
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if get_origin(hint) is Literal:
        return value in arguments
    if get_origin(hint) is tuple:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return listed and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return is_number(value)
    if hint is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, (str, PathLike))
    return not isinstance(hint, type) or isinstance(value, hint)
