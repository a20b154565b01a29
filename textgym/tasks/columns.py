"""How a row of a table becomes an example: which columns are its prompt and its reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from textgym.tasks.base import Example
from textgym.tasks.rows import no_column

PROMPT = "prompt"
MESSAGES = "messages"
REFERENCE = "reference"


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are the prompts and the references.

    A prompt is a string, or a conversation: a list of messages `{"role": ..., "content": ...}`. If
    the last message is the assistant's, it is the reference. A row without a column "prompt" that
    has one called "messages" is such a conversation. A reference is a string or a list of one
    message of the assistant; one that is absent, empty or null is None. All other columns go to
    `Example.columns`.

    Attributes:
        prompt: The column of the prompts.
        reference: The column of the references. It may be absent if it is "reference".
        called: What prompt and reference are called in error messages; the options that name the
            columns are called so too, with "_column" behind.
        reference_needed: Whether a row without a reference is refused.
    """

    prompt: str = PROMPT
    reference: str = REFERENCE
    called: tuple[str, str] = (PROMPT, REFERENCE)
    reference_needed: bool = False

    def check_reference(self, where: str, found: Collection[str]) -> None:
        """Raise ValueError if a reference column was asked for by name and is not there.

        Args:
            where: The table, for error messages.
            found: The names of its columns.
        """
        if self.reference not in found and self.reference != REFERENCE:
            raise ValueError(no_column(where, self.reference, found, self.called[1]))

    def prompt_column(self, where: str, found: Collection[str]) -> str:
        """Which of the columns that were found holds the prompts.

        Raises:
            ValueError: If none does.
        """
        if self.prompt in found:
            return self.prompt
        if self.prompt == PROMPT and MESSAGES in found:
            return MESSAGES
        raise ValueError(no_column(where, self.prompt, found, self.called[0]))

    def example(self, where: str, row: Mapping[str, Any], others: Collection[str] = ()) -> Example:
        """The example that a row is.

        Args:
            where: Where the row stands, for error messages.
            row: Its values by column.
            others: Columns of other rows, which are None in this one.

        Raises:
            ValueError: If the row is no example; the message says where it stands.
        """
        column = self.prompt_column(where, row)
        used = (self.prompt, column, self.reference)
        rest = {name: row.get(name) for name in [*others, *row] if name not in used}
        try:
            example = _example(row[column], row.get(self.reference), rest)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        self._check(where, column, example)
        return example

    def _check(self, where: str, column: str, example: Example) -> None:
        prompt, reference = self.called
        said = example.messages[-1].content
        if not said.strip():
            raise ValueError(
                f"{where}: the {prompt} is empty (column {column!r} holds {said!r}). Write a "
                f"{prompt} or remove the row."
            )
        if self.reference_needed and not (example.reference or "").strip():
            raise ValueError(
                f"{where}: there is no {reference} (column {self.reference!r} holds "
                f"{example.reference!r}). Write a {reference} or remove the row."
            )


def _example(prompt: Any, reference: Any, columns: Mapping[str, Any]) -> Example:
    if isinstance(reference, list) and len(reference) == 1 and _is_answer(reference[0]):
        reference = _content(reference[0])
    if reference == "":
        # A table cannot tell an empty cell from none, and nothing can be compared with either.
        reference = None
    if not isinstance(prompt, list):
        return Example(prompt, reference, columns)
    if prompt and _is_answer(prompt[-1]):
        if reference is not None:
            raise ValueError(
                f"there are two references, {reference!r} and the last message of the assistant. "
                "Take one of them out."
            )
        *prompt, answer = prompt
        reference = _content(answer) or None
    return Example.chat(prompt, reference, columns)


def _is_answer(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "assistant"


def _content(answer: Mapping[str, Any]) -> str:
    content = answer.get("content")
    if not isinstance(content, str):
        raise TypeError(f"the content of a message is a string, got {content!r}.")
    return content
