"""The registry of tasks, and the one function that turns a task spec into a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from textgym.registry import Registry, did_you_mean, import_object
from textgym.tasks.base import Task
from textgym.tasks.own import make_own

_REGISTRY: Registry[Task] = Registry("task")
_REGISTRY.register("continuation", "textgym.tasks.continuation:continuation")
_REGISTRY.register("dataset", "textgym.tasks.dataset:dataset")
_REGISTRY.register("dialogue", "textgym.tasks.dialogue:dialogue")
_REGISTRY.register("file", "textgym.tasks.file:file")
_REGISTRY.register("game", "textgym.tasks.game:game")
_REGISTRY.register("reasoning_gym", "textgym.tasks.reasoning_gym:reasoning_gym")
_REGISTRY.register("rewrite", "textgym.tasks.pairs:rewrite")
_REGISTRY.register("summarise", "textgym.tasks.pairs:summarise")
_REGISTRY.register("target_token", "textgym.tasks.target_token:target_token")
_REGISTRY.register("translate", "textgym.tasks.pairs:translate")


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return _REGISTRY.names()


def describe() -> dict[str, str]:
    """What each task is, in one line, by name."""
    return _REGISTRY.describe()


def parameters(name: str) -> str:
    """The parameters of a task with their defaults, as `textgym list` shows them."""
    return _REGISTRY.parameters(name)


def documentation(name: str) -> str:
    """What a task is and what its parameters mean: its docstring.

    Raises:
        ValueError: If there is no task of that name.
    """
    if ":" in name and name.partition(":")[0] not in _REGISTRY.names():
        return inspect.getdoc(import_object(name, "task")) or f"{name} has no docstring."
    return _REGISTRY.documentation(name)


def register(name: str, factory: Callable[..., Task] | str, *, replace: bool = False) -> None:
    """Make a task of one's own known by name, so that run files can ask for it.

    Args:
        name: The name.
        factory: Returns the task; its parameters are the task's. Or `"module:function"`, which is
            imported when the task is first made.
        replace: Whether a task of that name may exist.

    Raises:
        ValueError: If the name is taken, or the string is not of that form.
        TypeError: If the factory is neither callable nor a string.
    """
    _REGISTRY.register(name, factory, replace=replace)


def make(spec: str | Mapping[str, Any] | Task) -> Task:
    """The task that a spec asks for.

    Args:
        spec: One of

            * a name;
            * `"name:value"`: what stands behind the colon is the first parameter of the task, as
              in `"reasoning_gym:chain_sum"`, or `"game:6"` where that is a whole number;
            * `"package.module:name"`: a task of one's own, which is a function, a class or an
              object of that module; see `textgym.tasks.own`. A name that is registered goes
              first: a module called as a task is, such as `game`, `file` or `dataset`, is found
              only under another name;
            * a mapping with one of these under `"name"`; all else are parameters;
            * a task, which is returned as it is.

    Raises:
        ValueError: If there is no task of that name, nothing can be imported, or a parameter's
            value is refused.
        TypeError: If a parameter is unknown or missing, or the spec is something else.
    """
    if isinstance(spec, Task):
        return spec
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        params = dict(spec)
        return _make(params.pop("name"), params)
    if isinstance(spec, str):
        return _make(spec, {})
    return _REGISTRY.resolve(spec)  # which says what is wrong with it


def _make(name: str, params: dict[str, Any]) -> Task:
    prefix, colon, value = name.partition(":")
    if prefix not in _REGISTRY.names():
        if colon:
            return make_own(name, params)
        raise ValueError(
            f"no task named {name!r}; {did_you_mean(name, names())}. A task of your own is asked "
            "for by 'module:name'."
        )
    if colon:
        params = {**_first_parameter(prefix, name, value, params), **params}
    return _REGISTRY.make(prefix, **params)


def _first_parameter(
    prefix: str, name: str, value: str, params: Mapping[str, Any]
) -> dict[str, str | int]:
    """What stands behind the colon, by the name of the parameter that it is."""
    parameter = next(iter(inspect.signature(_REGISTRY.get(prefix)).parameters.values()), None)
    if parameter is None:
        raise TypeError(f"task {prefix!r} takes no parameters, got {name!r}.")
    first = parameter.name
    if first in params:
        raise TypeError(
            f"task {name!r}: {first} is given twice, as {value!r} and {params[first]!r}."
        )
    # As text where annotations are not evaluated; to evaluate them needs what others import.
    if parameter.annotation not in (int, "int"):
        return {first: value}
    try:
        return {first: int(value)}
    except ValueError as error:
        raise ValueError(f"task {name!r}: {first} is a whole number, got {value!r}.") from error
