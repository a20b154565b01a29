"""What a task is: prompts to continue, some with a reference, in three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One prompt, and what a reward may know about it.

    Equality looks at all fields; the hash leaves `columns` out, since they may hold lists.

    Attributes:
        prompt: The text to continue. Empty means that the model writes from nothing.
        reference: A text to compare the completion with, or None if the task has none.
        columns: Everything else known of this prompt, by name. A reward function gets them as
            TRL passes the extra columns of a data set. Copied, so that a later change of the
            mapping does not reach the example.

    Raises:
        TypeError: If the prompt or the reference is not a string.
        ValueError: If one of them is not Unicode text (it holds half a surrogate pair).
    """

    prompt: str
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        if self.reference is not None:
            _check_text("reference", self.reference)
        # A plain dict and not a read-only view of one, which cannot be pickled.
        object.__setattr__(self, "columns", dict(self.columns))


@dataclass(frozen=True)
class Task:
    """Prompts to write from, in up to three splits.

    A task says what to write about; what is a good text is the reward's business. Agents train on
    `"train"`, choose between checkpoints and settings on `"validation"`, and are reported on
    `"test"`. A task need not have all three: one that is asked for a split it lacks says so.

    Attributes:
        name: Names the task in reports.
        splits: Examples by split name: `"train"`, `"validation"`, `"test"`. Sequences become
            tuples.

    Raises:
        TypeError: If something in a split is not an `Example`.
        ValueError: If a split has another name, or no split holds an example.
    """

    name: str
    splits: Mapping[str, tuple[Example, ...]] = field(hash=False)

    def __post_init__(self) -> None:
        for split, examples in self.splits.items():
            if split not in SPLITS:
                raise ValueError(
                    f"task {self.name!r} has a split {split!r}; expected one of {SPLITS}."
                )
            for index, example in enumerate(examples):
                if not isinstance(example, Example):
                    raise TypeError(
                        f"task {self.name!r}, split {split!r}, index {index}: expected an "
                        f"Example, got {example!r} ({type(example).__name__}). "
                        "Write Example(prompt=...)."
                    )
        if not any(self.splits.values()):
            raise ValueError(f"task {self.name!r} has no example in any split.")
        splits = {split: tuple(examples) for split, examples in self.splits.items()}
        object.__setattr__(self, "splits", splits)

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of one split, at least one.

        Raises:
            ValueError: If there is no split of that name, or it is empty.
        """
        examples = self.splits.get(name, ())
        if not examples:
            available = ", ".join(f"{key!r} ({len(e)})" for key, e in self.splits.items() if e)
            cure = (
                "Use one of these, or give the task examples for it"
                if name in SPLITS
                else "Use one of these"
            )
            raise ValueError(
                f"task {self.name!r} has no examples in split {name!r}; it has {available}. {cure}."
            )
        return examples

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples of all splits, one split after the other."""
        return tuple(example for examples in self.splits.values() for example in examples)


def _check_text(field_name: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(
            f"expected the {field_name} to be a string, got {text!r} ({type(text).__name__})."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the {field_name} {text!r} holds half a surrogate pair at index {error.start}, which "
            "is no character. It was probably cut or escaped as UTF-16; decode it again."
        ) from error
