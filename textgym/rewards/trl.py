"""Our rewards as reward functions of TRL's trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from textgym.rewards.make import RewardSpec, make
from textgym.rewards.replay import replay
from textgym.tasks.base import Example
from textgym.tokenizer import Tokenizer

TRLText: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A text as TRL has it: a string, or the messages of a conversation."""


def as_trl(
    reward: RewardSpec,
    tokenizer: str | Tokenizer,
    *,
    max_new_tokens: int | None = None,
    reference_column: str = "reference",
    name: str | None = None,
) -> TRLReward:
    """Make a reward function for TRL's trainers, such as GRPOTrainer, of any reward of ours.

    A text gets what its tokens would earn in all.

        trainer = GRPOTrainer("gpt2", reward_funcs=[as_trl("sentiment", "gpt2")], ...)

    Args:
        reward: Any spec that `make` takes.
        tokenizer: The model's own: built-in name, local directory, hub id, or a tokenizer.
        max_new_tokens: The budget of a completion (`max_completion_length`), for rewards that
            measure by it; None takes the longest of each batch.
        reference_column: The column of the data set that holds the reference, if there is one.
        name: What TRL's logs call it; the names of the rewards if None.
    """
    return TRLReward(reward, tokenizer, max_new_tokens, reference_column, name)


class TRLReward:
    """A reward as TRL calls it; made by `as_trl`.

    Attributes:
        __name__: What TRL's logs call it.
    """

    def __init__(
        self,
        reward: RewardSpec,
        tokenizer: str | Tokenizer,
        max_new_tokens: int | None,
        reference_column: str,
        name: str | None,
    ) -> None:
        self._reward = make(reward, timing="delayed")
        self._tokenizer = (
            tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_pretrained(tokenizer)
        )
        self._max_new_tokens = max_new_tokens
        self._reference_column = reference_column
        self.__name__ = name or "+".join(self._reward.rewards)

    def __call__(
        self,
        prompts: Sequence[TRLText],
        completions: Sequence[TRLText],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """What each completion earns.

        Args:
            prompts: The prompts; of a conversation, its last message.
            completions: The completions; of a conversation, what the assistant says in it.
            completion_ids: Their tokens. A completion that does not end with an end-of-text token
                was cut. None for completions that are whole.
            **columns: The columns of the data set, a list each; anything else is left alone.

        Raises:
            ValueError: If the tokens are of another tokenizer than `as_trl` was given.
            RewardError: If the reward failed.
        """
        known = {
            key: values
            for key, values in columns.items()
            if isinstance(values, (list, tuple)) and len(values) == len(prompts)
        }
        references = known.pop(self._reference_column, [None] * len(prompts))
        examples = [
            Example(
                prompt if isinstance(prompt, str) else _said(prompt[-1:]),
                reference,
                {key: values[k] for key, values in known.items()},
            )
            for k, (prompt, reference) in enumerate(zip(prompts, references, strict=True))
        ]
        given = [None] * len(prompts) if completion_ids is None else completion_ids
        token_ids = [
            self._own_ids(completion, ids)
            for completion, ids in zip(completions, given, strict=True)
        ]
        played = replay(self._reward, self._tokenizer, examples, token_ids, self._max_new_tokens)
        return [sum(each.rewards) for each in played]

    def _own_ids(self, completion: TRLText, ids: Sequence[int] | None) -> list[int]:
        """The tokens of what was written, with an end-of-text token unless it was cut."""
        tokenizer = self._tokenizer
        eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        if isinstance(completion, str) and ids:
            self._check(completion, ids)
            return list(ids)
        # The tokens of a conversation are also those of its template, and what tools answered.
        text = completion if isinstance(completion, str) else _said(completion)
        own = tokenizer.encode_plain(text)
        if not own:
            return eos
        is_whole = not ids or ids[-1] in tokenizer.special_ids
        return [*own, *eos] if is_whole and len(own) != self._max_new_tokens else own

    def _check(self, completion: str, ids: Sequence[int]) -> None:
        known = max(ids) < self._tokenizer.vocab_size
        text = self._tokenizer.decode(list(ids)) if known else ""
        # Tokenizers differ in the spaces that they strip, and a cut may leave half a character.
        if not known or _letters(text) != _letters(completion):
            read = f"which it reads as {text!r}" if known else "which are not all in its vocabulary"
            raise ValueError(
                f"as_trl was given {self._tokenizer}, {read}: the tokens of {completion!r}. Give "
                "it the tokenizer of the model that TRL trains."
            )


def _said(messages: Sequence[Mapping[str, Any]]) -> str:
    """What some messages say, but for the answers of tools."""
    contents = [m.get("content") or "" for m in messages if m.get("role") != "tool"]
    return "\n".join(
        content
        if isinstance(content, str)
        else "".join(part["text"] for part in content if part.get("type") == "text")
        for content in contents
    )


def _letters(text: str) -> str:
    return "".join(text.replace("\ufffd", "").split())
