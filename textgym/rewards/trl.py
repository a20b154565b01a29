"""Our rewards as reward functions of TRL's trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from textgym.rewards.make import RewardSpec, make
from textgym.rewards.replay import replay
from textgym.tasks.base import Example
from textgym.tokenizer import BUILTIN, Tokenizer

TRLText: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A text as TRL has it: a string, or the messages of a conversation."""


def as_trl(
    reward: RewardSpec,
    tokenizer: str | Tokenizer = BUILTIN,
    *,
    max_new_tokens: int | None = None,
    reference_column: str = "reference",
    name: str | None = None,
) -> TRLReward:
    """Make a reward function for TRL's trainers, such as GRPOTrainer, of any reward of ours.

    A text gets the score of the whole, which is what immediate rewards add up to.

        trainer = GRPOTrainer(model, reward_funcs=[as_trl("sentiment", "gpt2")], ...)

    Args:
        reward: Any spec that `make` takes.
        tokenizer: The model's: built-in name, local directory, hub id, or a tokenizer.
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
        """The score of each completion.

        Args:
            prompts: The prompts; of a conversation, the last message is the prompt.
            completions: The completions; of a conversation, the messages' contents.
            completion_ids: Their tokens; made from the completions if they are not given.
            **columns: The columns of the data set, a list each; anything else is left alone.

        Raises:
            RewardError: If the reward failed.
        """
        texts = [_content(completion) for completion in completions]
        if completion_ids is None:
            eos = self._tokenizer.eos_token_id
            ending = [] if eos is None else [eos]
            completion_ids = [[*self._tokenizer.encode_plain(text), *ending] for text in texts]
        known = {
            key: values
            for key, values in columns.items()
            if isinstance(values, (list, tuple)) and len(values) == len(prompts)
        }
        references = known.pop(self._reference_column, [None] * len(prompts))
        examples = [
            Example(
                prompt if isinstance(prompt, str) else _content(prompt[-1:]),
                reference,
                {key: values[k] for key, values in known.items()},
            )
            for k, (prompt, reference) in enumerate(zip(prompts, references, strict=True))
        ]
        played = replay(
            self._reward, self._tokenizer, examples, completion_ids, self._max_new_tokens
        )
        return [each.score for each in played]


def _content(text: TRLText) -> str:
    """The words of a text, whichever form it has."""
    if isinstance(text, str):
        return text
    return "\n".join(str(message["content"]) for message in text)
