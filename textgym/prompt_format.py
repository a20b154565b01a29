"""How prompts become tokens: as plain text, or as the conversation that a chat model expects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from textgym.chat import ChatTemplate, ChatTemplateError
from textgym.messages import plain_reply
from textgym.tasks.base import Example
from textgym.tokenizer import Tokenizer


class PromptFormat(Protocol):
    """Makes tokens of what a model is to go on from."""

    @property
    def is_chat(self) -> bool:
        """Whether prompts are messages."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; its end-of-text token is the one that ends the model's turn."""

    @property
    def original(self) -> Tokenizer:
        """The tokenizer as it came, which is saved with a model."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end the model's turn."""

    def encode(self, example: Example) -> list[int]:
        """Token ids of a prompt."""

    def encode_completion(self, example: Example, text: str) -> list[int]:
        """Token ids that a model writes after a prompt to say a text and end its turn.

        They are those that the tokenizer makes of prompt and text in one, where these begin with
        the prompt's; a tokenizer that joins the two across their boundary is given the text alone.
        So is one whose special tokens are spelt in the text, where they are text as any other. Of
        a tokenizer without an end-of-text token the end is not said.
        """

    def encode_reply(self, reply: str, turn_ids: Sequence[int], turn: str) -> list[int]:
        """Token ids that stand between a turn of the model and the next.

        Args:
            reply: What the other side says.
            turn_ids: The tokens of the turn that is over, at least one.
            turn: Its text.
        """


def prompt_format(tokenizer: Tokenizer, chat: bool | None) -> PromptFormat:
    """The format of a tokenizer's model.

    Args:
        tokenizer: The tokenizer.
        chat: Whether prompts are messages of a chat; None says yes if the tokenizer has a chat
            template.

    Raises:
        TypeError: If `chat` is something else.
        ValueError: If a chat is asked for, and the tokenizer has no template.
    """
    if chat is not None and not isinstance(chat, bool):
        raise TypeError(f"chat is True, False or None, got {chat!r}.")
    template = tokenizer.chat_template
    if template is None:
        if chat:
            raise ValueError(
                f"chat=True, but tokenizer {tokenizer.name!r} has no chat template (a file "
                "chat_template.jinja, or an entry of tokenizer_config.json). Leave chat out for "
                "plain text."
            )
        return PlainFormat(tokenizer)
    return PlainFormat(tokenizer) if chat is False else ChatFormat(tokenizer, template)


class PlainFormat:
    """Prompts as they stand, for base models; see `PromptFormat`."""

    is_chat = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = self.original = tokenizer
        eos = tokenizer.eos_token_id
        self.end_ids = frozenset([] if eos is None else [eos])

    def encode(self, example: Example) -> list[int]:
        """See `PromptFormat`."""
        return self.tokenizer.encode(example.prompt)

    def encode_completion(self, example: Example, text: str) -> list[int]:
        """See `PromptFormat`."""
        whole = self.tokenizer.encode(example.prompt + text)
        return _completion(self.tokenizer, self.encode(example), whole, text)

    def encode_reply(self, reply: str, turn_ids: Sequence[int], turn: str) -> list[int]:
        """See `PromptFormat`."""
        line_end = "" if turn.endswith("\n") else "\n"
        return self.tokenizer.encode_plain(line_end + plain_reply(reply))


class ChatFormat:
    """Prompts as messages, by the tokenizer's chat template; see `PromptFormat`."""

    is_chat = True

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._template = template
        self.original = tokenizer
        self.tokenizer = tokenizer.with_eos(self._end_of_turn)
        ends = (tokenizer.eos_token_id, self._end_of_turn)
        self.end_ids = frozenset(end for end in ends if end is not None)

    def encode(self, example: Example) -> list[int]:
        """See `PromptFormat`."""
        # The template writes the special tokens, that of the beginning among them.
        return self.original.encode_plain(self._template.render(example.messages))

    def encode_completion(self, example: Example, text: str) -> list[int]:
        """See `PromptFormat`."""
        prompt = self._template.render(example.messages)
        whole = self.original.encode_plain(prompt + text)
        return _completion(self.tokenizer, self.original.encode_plain(prompt), whole, text)

    def encode_reply(self, reply: str, turn_ids: Sequence[int], turn: str) -> list[int]:
        """See `PromptFormat`."""
        ids = self.original.encode_plain(self._template.reply(reply))
        if turn_ids and turn_ids[-1] in self.end_ids and self._end_of_turn in ids:
            # The model has ended its turn itself; all up to there is said.
            return ids[ids.index(self._end_of_turn) + 1 :]
        return ids

    @cached_property
    def _end_of_turn(self) -> int | None:
        """The first special token that the template writes after a turn of the model."""
        tokenizer = self.original
        try:
            after = tokenizer.encode_plain(self._template.reply("Hello."))
        except ChatTemplateError:  # it knows one turn only
            return tokenizer.eos_token_id
        special = tokenizer.special_ids - {tokenizer.bos_token_id}
        return next((i for i in after if i in special), tokenizer.eos_token_id)


def _completion(
    tokenizer: Tokenizer, prompt_ids: list[int], whole_ids: list[int], text: str
) -> list[int]:
    """What follows the prompt in the token ids of prompt and text, and the end of the text."""
    begins = whole_ids[: len(prompt_ids)] == prompt_ids
    ids = whole_ids[len(prompt_ids) :] if begins else tokenizer.encode_plain(text)
    if not tokenizer.special_ids.isdisjoint(ids):  # the text spells one, and does not mean it
        ids = tokenizer.encode_literal(text)
    eos = tokenizer.eos_token_id
    return ids if eos is None else [*ids, eos]
