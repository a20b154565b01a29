"""Where prompts and references come from: tasks by name, in `train`, `validation` and `test`.

A task is asked for by name (`"continuation"`), by a mapping `{"name": "file", "path": ...}` of a
name and its parameters, which is what a run file stores, by the place of one's own
(`"my_tasks:riddles"`), or given as a `Task`.
"""

from textgym.tasks.base import SPLITS, Example, Examples, Interaction, Stream, Task
from textgym.tasks.make import describe, documentation, make, names, parameters, register

__all__ = [
    "SPLITS",
    "Example",
    "Examples",
    "Interaction",
    "Stream",
    "Task",
    "describe",
    "documentation",
    "make",
    "names",
    "parameters",
    "register",
]
