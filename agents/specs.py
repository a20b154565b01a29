"""Settings that say more than a number, as people type them and as files hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from textgym.templates import read_templates


def parse_spec(text: str) -> Any:
    """A task or reward as people type it.

    A name; JSON, `{"name": "length", "target": 20}`; or names with weights,
    `sentiment=1,length=0.1`.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"{text!r} is no JSON: {error}. Write for instance "
                '{"name": "length", "target": 20}, in single quotes for the shell.'
            ) from error
    if "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError as error:
            raise ValueError(
                f"{text!r}: {weight!r} is no weight of {name.strip()!r}. Write for instance "
                "sentiment=1,length=0.1, or JSON for other parameters."
            ) from error
    return weights


def as_templates(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Templates as they are given: themselves, or the file that holds them.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is no list.
        ValueError: If it is malformed.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise TypeError(f"templates is a list of strings or of one file, got {given!r}.")
    if len(given) == 1 and given[0].endswith((".txt", ".jsonl")) and "{" not in given[0]:
        return tuple(template.text for template in read_templates(given[0]))
    return tuple(given)


def as_vocabulary(given: Sequence[str] | None) -> str | tuple[str, ...] | None:
    """A vocabulary as it is given: words, or the path of the file that holds them."""
    if given is None:
        return None
    if len(given) != 1:
        return tuple(given)
    # A word that ends like a file is a file, so that a path that is misspelt is not taken for it.
    return given[0] if given[0].endswith(".txt") or Path(given[0]).is_file() else tuple(given)


Spec: TypeAlias = Annotated[
    Any,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME|JSON",
        instance_from_str=lambda words: parse_spec(words[0]),
        is_instance=lambda value: isinstance(value, (str, Mapping, Sequence)),
        str_from_instance=lambda value: [value if isinstance(value, str) else json.dumps(value)],
    ),
]
