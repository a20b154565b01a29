"""What is said in a conversation, and by whom; and how it reads as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

ROLES = ("system", "user", "assistant")

_LABELS = {"user": "User", "assistant": "Assistant"}


class Message(NamedTuple):
    """One turn of a conversation, as chat templates know it.

    Attributes:
        role: `"system"`, `"user"` or `"assistant"`.
        content: What is said.
    """

    role: str
    content: str


Messages: TypeAlias = "Sequence[Message | Mapping[str, Any]]"
"""A conversation as people write it: messages, or mappings `{"role": ..., "content": ...}`."""


def as_messages(value: Any) -> tuple[Message, ...]:
    """A conversation that a model is to go on with, checked.

    Args:
        value: A list of messages, of which the last is the user's.

    Raises:
        TypeError: If it is no list of mappings with a role and a content, both strings.
        ValueError: If it is empty, a role is unknown, or the last message is not the user's.
    """
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        raise TypeError(f"expected a list of messages {_SHAPE}, got {value!r}.")
    messages = tuple(_as_message(message) for message in value)
    if not messages or messages[-1].role != "user":
        raise ValueError(
            "a conversation to go on with holds at least one message, and the last one is not the "
            f"assistant's or the system's but the user's, got {value!r}."
        )
    return messages


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation for a model that knows no chat template.

    A single message is its content as it stands. Several are lines with the name of who speaks,
    the last of which is for the model to go on with.
    """
    if len(messages) == 1:
        return messages[0].content
    lines = [
        f"{_LABELS[role]}: {content}" if role in _LABELS else content for role, content in messages
    ]
    return "\n".join([*lines, plain_turn()])


def plain_turn() -> str:
    """What stands before each turn of the model in plain text."""
    return f"{_LABELS['assistant']}:"


def plain_reply(reply: str) -> str:
    """What stands between two turns of the model in plain text, if the first ended its line."""
    return f"{_LABELS['user']}: {reply}\n{plain_turn()}"


_SHAPE = '{"role": "user", "content": "..."}'


def _as_message(value: Any) -> Message:
    if isinstance(value, Message):
        role, content = value
    elif isinstance(value, Mapping) and {"role", "content"} <= value.keys():
        role, content = value["role"], value["content"]
    else:
        raise TypeError(f"expected a message {_SHAPE}, got {value!r}.")
    if role not in ROLES:
        raise ValueError(f"the role of a message is one of {', '.join(ROLES)}, got {role!r}.")
    if not isinstance(content, str):
        raise TypeError(f"the content of a message is a string, got {content!r}.")
    return Message(role, content)
