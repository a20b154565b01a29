"""What a task is: prompts to continue, some with a reference, in three splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from textgym.arguments import check_text
from textgym.messages import Message, Messages, as_messages, plain_text

if TYPE_CHECKING:
    import numpy as np

    from textgym.completion import Sample

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One prompt, and what a reward may know about it.

    Equality looks at all fields; the hash leaves `columns` out, since they may hold lists.

    Attributes:
        prompt: The text to continue, or the question of a chat model's user. Empty means that the
            model writes from nothing.
        reference: A text to compare the completion with, or None if the task has none.
        columns: Everything else known of this prompt, by name. A reward function gets them as
            TRL passes the extra columns of a data set. Copied, so that a later change of the
            mapping does not reach the example.
        messages: The conversation so far, for chat models; a single message of the user, the
            prompt, unless given. `Example.chat` makes the prompt of the messages.

    Raises:
        TypeError: If the prompt or the reference is not a string, or messages are none.
        ValueError: If one of them is not Unicode text (it holds half a surrogate pair).
    """

    prompt: str
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    messages: tuple[Message, ...] = ()

    @classmethod
    def chat(
        cls,
        messages: Messages,
        reference: str | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Example:
        """An example that is a conversation to go on with.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": ...}`, the last of
                which is the user's. A model without a chat template reads them as plain text: a
                single message as it stands, several as lines "User: ...", "Assistant: ...".
            reference: As for `Example`.
            columns: As for `Example`.
        """
        said = as_messages(messages)
        return cls(plain_text(said), reference, columns or {}, said)

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        if self.reference is not None:
            check_text("reference", self.reference)
        # A plain dict and not a read-only view of one, which cannot be pickled.
        object.__setattr__(self, "columns", dict(self.columns))
        said = as_messages(self.messages) if self.messages else (Message("user", self.prompt),)
        object.__setattr__(self, "messages", said)
        for message in said:
            check_text("message", message.content)


@runtime_checkable
class Stream(Protocol):
    """Examples that are not all there at once: a split that gives one at a time, without end.

    Every environment draws from a copy of its own (`copy.deepcopy`), and takes a fresh one when it
    is seeded. So a stream cannot hold a generator or an open file. Let it hold what these are made
    from, such as a path, and make them at the first draw:

        class Lines:
            def __init__(self, path):
                self.path, self.lines = path, None

            def draw(self, generator):
                if self.lines is None:
                    self.lines = itertools.cycle(open(self.path))
                return Example(next(self.lines))

    A stream that has `state()`, JSON-able, and `load_state(state)` goes on where it was when a run
    is resumed; others begin anew.

    `textgym.tasks.streaming.ExampleStream` does this for any source, and mixes what it reads.
    """

    def draw(self, generator: np.random.Generator) -> Example:
        """The next example."""


class Interaction(Protocol):
    """The other side of a task with several turns; see `textgym.tasks.game`."""

    @property
    def max_turns(self) -> int:
        """Most turns of the model in an episode."""

    @property
    def longest_reply(self) -> str:
        """A reply that is as long as any, so that contexts are made large enough."""

    def reply(self, example: Example, turns: Sequence[str]) -> str | None:
        """What is said after the model's last turn; None if the episode is over.

        Args:
            example: What the episode began with.
            turns: What the model said in each of its turns, without space around it.
        """


Examples: TypeAlias = "Sequence[Example] | Stream"
"""The examples of a split: a tuple, a sequence that reads them when they are asked for, or a
stream."""


@dataclass(frozen=True)
class Task:
    r"""Prompts to write from, in up to three splits, and what is a good answer to them.

    A task says what to write about; what is paid is the reward's business, for which the task
    suggests one. Agents train on `"train"`, choose between checkpoints and settings on
    `"validation"`, and are reported on `"test"`. A task need not have all three: one that is asked
    for a split it lacks says so.

    Attributes:
        name: Names the task in reports.
        splits: Examples by split name: `"train"`, `"validation"`, `"test"`. Lists become tuples;
            other sequences stay as they are and are read as needed, which wants a
            `context_length` of the environment.
        reward: The reward that fits, for environments that are given none: whatever
            `textgym.rewards.make` takes.
        success: Whether a finished text solves its example, given as a `Sample`, for
            `info["is_success"]`; None leaves that to the thresholds of the reward. A function of
            a module, or an object, so that environments can be sent to other processes.
        stop: Strings that end a text in plain form, for environments that are given none. Chat
            models end their turns themselves.
        templates: Ways to put a prompt, such as `"Question: {prompt}\nAnswer:"`; see
            `textgym.templates`. Empty leaves prompts as they are.
        interaction: Who answers between the turns of the model; None for tasks of one turn.

    Raises:
        TypeError: If something in a split is not an `Example`.
        ValueError: If a split has another name, or no split holds an example.
    """

    name: str
    splits: Mapping[str, Examples] = field(hash=False)
    reward: Any = field(default="sentiment", hash=False)
    success: Callable[[Sample], bool] | None = field(default=None, hash=False)
    stop: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    interaction: Interaction | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for split, examples in self.splits.items():
            if split not in SPLITS:
                raise ValueError(
                    f"task {self.name!r} has a split {split!r}; expected one of {SPLITS}."
                )
            if isinstance(examples, (tuple, list)):
                self._check_examples(split, examples)
        splits = {
            split: tuple(examples) if isinstance(examples, list) else examples
            for split, examples in self.splits.items()
        }
        object.__setattr__(self, "splits", splits)
        if not any(map(_holds_some, splits.values())):
            raise ValueError(f"task {self.name!r} has no example in any split.")
        for attribute in ("stop", "templates"):
            texts = getattr(self, attribute)
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                raise TypeError(
                    f"task {self.name!r}: {attribute} is a list of strings, got {texts!r}."
                )
            object.__setattr__(self, attribute, tuple(texts))

    def split(self, name: str) -> Examples:
        """The examples of one split, at least one.

        Raises:
            ValueError: If there is no split of that name, or it is empty.
        """
        examples = self.splits.get(name, ()) if isinstance(name, str) else ()
        if not _holds_some(examples):
            available = ", ".join(
                f"{key!r} ({_size(e)})" for key, e in self.splits.items() if _holds_some(e)
            )
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
        """The examples of all splits that are in memory, one split after the other."""
        in_memory = (e for e in self.splits.values() if isinstance(e, tuple))
        return tuple(example for examples in in_memory for example in examples)

    def _check_examples(self, split: str, examples: Sequence[Any]) -> None:
        for index, example in enumerate(examples):
            if not isinstance(example, Example):
                raise TypeError(
                    f"task {self.name!r}, split {split!r}, index {index}: expected an "
                    f"Example, got {example!r} ({type(example).__name__}). "
                    "Write Example(prompt=...)."
                )


def _holds_some(examples: Examples) -> bool:
    return isinstance(examples, Stream) or len(examples) > 0


def _size(examples: Examples) -> str:
    return "a stream" if isinstance(examples, Stream) else str(len(examples))
