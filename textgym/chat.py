"""Chat templates: conversations as the text that a chat model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from textgym.messages import Message

_MARK = "textgym-marks-this"
"""Stands for a turn of the model, to find what a template writes around it."""


class ChatTemplateError(ValueError):
    """A template refuses a conversation."""


class ChatTemplate:
    """The chat template of a tokenizer, as transformers renders it: Jinja in a sandbox.

    Special tokens that stand in what people say become special tokens, as everywhere with such
    templates. A template that writes today's date, as that of Llama 3.2, writes another one
    tomorrow.

    Args:
        source: The template.
        special_tokens: `bos_token`, `eos_token` and the like, which templates may name.
        name: Whose template it is, for messages of errors.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], name: str) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._name = name

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str, dict[str, str], str]]:
        """Rebuild from the source: what Jinja makes of it can be neither pickled nor copied."""
        return type(self), (self.source, self._special_tokens, self._name)

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation, up to where the model begins its turn.

        Raises:
            ChatTemplateError: If the template refuses it; many know no system message, or want
                the user and the assistant to take turns.
        """
        from jinja2 import TemplateError

        template = self._template
        try:
            text: str = template.render(
                messages=[message._asdict() for message in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self._special_tokens,
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            roles = ", ".join(message.role for message in messages)
            raise ChatTemplateError(
                f"the chat template of {self._name!r} refuses a conversation of {roles} ({error}). "
                "Give it what it takes, or chat=False for plain text."
            ) from error
        return text

    def reply(self, reply: str) -> str:
        """What a template writes between two turns of the model, the end of the first included.

        Raises:
            ChatTemplateError: If it knows one turn only.
        """
        conversation = [
            Message("user", "Hello."),
            Message("assistant", _MARK),
            Message("user", reply),
        ]
        _, found, rest = self.render(conversation).partition(_MARK)
        if not found:
            raise ChatTemplateError(
                f"the chat template of {self._name!r} leaves out what the model said before, so "
                "that tasks of several turns cannot be written with it. Give chat=False."
            )
        return rest

    @cached_property
    def _template(self) -> Any:
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(jinja2.ext.Extension):
            """Leaves marks of training away: `{% generation %}` around the model's turns."""

            tags = {"generation"}  # noqa: RUF012  # as in Jinja's own extensions

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
        )
        # Jinja's own filter escapes what HTML would misread.
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            return environment.from_string(self.source)
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template of {self._name!r} is not valid Jinja: {error}. Give "
                "chat=False for plain text."
            ) from error


def _to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
