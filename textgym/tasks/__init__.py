"""Where prompts and references come from: tasks by name, in `train`, `validation` and `test`.

A task is asked for by name (`"continuation"`), by a mapping `{"name": "file", "path": ...}` of a
name and its parameters, which is what a run file stores, or given as a `Task` of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from textgym.registry import Registry
from textgym.tasks.base import SPLITS, Example, Task

_REGISTRY: Registry[Task] = Registry("task")
_REGISTRY.register("continuation", "textgym.tasks.continuation:continuation")
_REGISTRY.register("file", "textgym.tasks.file:file")
_REGISTRY.register("target_token", "textgym.tasks.target_token:target_token")


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
        spec: A name, a mapping `{"name": ..., **parameters}`, or a task, which is returned as is.

    Raises:
        ValueError: If there is no task of that name, or a parameter's value is refused.
        TypeError: If a parameter is unknown or missing, or the spec is something else.
    """
    return spec if isinstance(spec, Task) else _REGISTRY.resolve(spec)


__all__ = [
    "SPLITS",
    "Example",
    "Task",
    "describe",
    "documentation",
    "make",
    "names",
    "parameters",
    "register",
]
