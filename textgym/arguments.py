"""Checks of what a person gives, with one wording for all."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, of Python or numpy; a bool is none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def is_payable(value: Any) -> bool:
    """Whether a value is a number that a reward can be: one that is finite as a float32."""
    return is_number(value) and bool(abs(value) <= 1e38)


def as_count(name: str, value: Any) -> int:
    """A whole number of at least 1, of Python's or of numpy's; raises ValueError if it is not."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"{name} is a whole number of at least 1, got {value!r}.")
    return count


def check_flag(name: str, value: Any) -> None:
    """Raise TypeError unless a value is a bool; any other would do, and "no" would mean yes."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, got {value!r}.")


def check_options(options: Any) -> None:
    """Raise TypeError unless the options of a reset are a mapping."""
    if not isinstance(options, Mapping):
        raise TypeError(
            f"the options of a reset are a dict, such as {{'prompt': 'Once'}}, got {options!r}."
        )


def check_text(name: str, text: Any) -> None:
    """Raise unless a value is a text that can be written down as UTF-8.

    Raises:
        TypeError: If it is no string.
        ValueError: If it holds half a surrogate pair.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected the {name} to be a string, got {text!r} ({_kind(text)}).")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the {name} {text!r} holds half a surrogate pair at index {error.start}, which "
            "is no character. It was probably cut or escaped as UTF-16; decode it again."
        ) from error


def as_texts(name: str, given: Any, example: str) -> tuple[str, ...]:
    """A list of texts that are not empty.

    Args:
        name: What it is called.
        given: The list, or anything else to loop over.
        example: A list that would do, for error messages.

    Raises:
        TypeError: If it is no list of such texts.
        ValueError: If a text holds half a surrogate pair.
    """
    listed = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    texts = tuple(given) if listed else ()
    if not listed or not all(isinstance(text, str) and text for text in texts):
        raise TypeError(f"{name} is a list of non-empty strings, such as {example}, got {given!r}.")
    for text in texts:
        check_text(f"text in {name}", text)
    return texts


def _kind(value: Any) -> str:
    return type(value).__name__
