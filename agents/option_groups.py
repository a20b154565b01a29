"""The settings of a command as groups of options, as `--help` shows them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import Field, field, fields, is_dataclass, make_dataclass
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

import tyro


def option_groups(kind: type[Any]) -> list[type[Any]]:
    """The settings that a dataclass has itself, and those that it inherits, if there are any.

    Args:
        kind: The dataclass.

    Returns:
        Dataclasses that check nothing: what goes together, only all of the settings can tell.
    """
    names = inspect.get_annotations(kind)
    own = [each for each in fields(kind) if each.name in names]
    rest = [each for each in fields(kind) if each.name not in names]
    return [_group(kind, some) for some in (own, rest) if some]


def _group(kind: type[Any], settings: list[Field[Any]]) -> type[Any]:
    hints, texts = get_type_hints(kind, include_extras=True), dict(_texts(kind))
    options: list[tuple[str, Any, Any]] = []
    for each in settings:
        # As one paragraph: tyro takes the indentation of a docstring for the end of one.
        described = tyro.conf.arg(help=" ".join(texts[each.name].split()))
        default = field(default=each.default, default_factory=each.default_factory)
        options.append((each.name, Annotated[hints[each.name], described], default))
    return make_dataclass(kind.__name__, options, frozen=True)


def _texts(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """The docstrings below the fields of a dataclass."""
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(body, ast.ClassDef)
            for setting, text in pairwise(body.body):
                match setting, text:
                    case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                        yield name, words
