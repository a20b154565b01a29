"""Some of a task's examples, the same ones each time."""

from __future__ import annotations

import numpy as np

from textgym.tasks.base import Example, Stream, Task


def first_examples(task: Task, split: str, most: int, seed: int) -> tuple[Example, ...]:
    """The first examples of a split, at most so many; of a stream, some that the seed draws."""
    examples = task.splits.get(split, ())
    if isinstance(examples, Stream):
        generator = np.random.default_rng(seed)
        return tuple(examples.draw(generator) for _ in range(most))
    return tuple(examples[index] for index in range(min(most, len(examples))))
