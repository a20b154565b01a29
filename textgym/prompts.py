"""The prompts that episodes begin with: as tokens, drawn by chance or asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.registry import did_you_mean
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

PromptTruncation: TypeAlias = Literal["error", "left"]
"""What becomes of a prompt that is longer than its room: an error, or its end is kept."""

_CHOICES = ("prompt", "prompt_ids", "prompt_index")
_OPTIONS = (*_CHOICES, "reference")


class Prompt(NamedTuple):
    """What an episode begins with: an example of the task, and the tokens of its prompt."""

    example: Example
    token_ids: NDArray[np.int64]


class Prompts:
    """The prompts of one split of a task, tokenised to fit a context.

    Args:
        task: The task.
        split: Whose prompts are drawn.
        tokenizer: Makes tokens of them.
        max_new_tokens: Places of the context that are kept for the completion.
        context_length: Length of the context, L. None takes what the longest prompt of any
            split needs, so that training and evaluation have the same spaces.
        truncation: What becomes of longer prompts.

    Attributes:
        context_length: L, in tokens.

    Raises:
        ValueError: If a prompt is empty or does not fit, or the context has no room for one.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        tokenizer: Tokenizer,
        *,
        max_new_tokens: int,
        context_length: int | None,
        truncation: PromptTruncation,
    ) -> None:
        if truncation not in get_args(PromptTruncation):
            raise ValueError(f"prompt_truncation is 'error' or 'left', got {truncation!r}.")
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._truncation = truncation
        examples = task.split(split)
        encoded = {
            example.prompt: self._encode(example.prompt)
            for example in (task.examples if context_length is None else examples)
        }
        if context_length is None:
            context_length = max_new_tokens + max(map(len, encoded.values()))
        elif not isinstance(context_length, int) or context_length <= max_new_tokens:
            raise ValueError(
                f"context_length={context_length!r} leaves no room for a prompt beside "
                f"max_new_tokens={max_new_tokens}. Give a larger context_length, or None for "
                "what the task's longest prompt needs."
            )
        self.context_length = context_length
        self._prompts = [
            Prompt(example, self._fit(encoded[example.prompt], f"prompt {i} of split {split!r}"))
            for i, example in enumerate(examples)
        ]

    def draw(self, generators: Sequence[np.random.Generator]) -> list[Prompt]:
        """A prompt by each of the generators, all prompts being as likely."""
        prompts, count = self._prompts, len(self._prompts)
        # random() costs a tenth of integers(), and this is done for every episode.
        return [prompts[int(generator.random() * count)] for generator in generators]

    def choose(self, options: Mapping[str, Any]) -> Prompt:
        """The prompt that the options of a reset ask for.

        Args:
            options: `prompt` or `prompt_ids`, with a `reference` if wanted, or `prompt_index`.

        Raises:
            ValueError: On an unknown option, or a prompt that does not fit.
        """
        for key in options:
            if key not in _OPTIONS:
                raise ValueError(
                    f"unknown reset option {key!r}; {did_you_mean(str(key), _OPTIONS)}."
                )
        given = [key for key in _CHOICES if key in options]
        if len(given) != 1:
            raise ValueError(
                f"reset options name exactly one of {', '.join(_CHOICES)}, got {dict(options)!r}."
            )
        if "prompt_index" in options:
            return self._prompts[self._checked_index(options)]
        if "prompt" in options:
            text = options["prompt"]
            if not isinstance(text, str):
                raise ValueError(f"option prompt is a string, got {text!r}.")
            token_ids = self._encode(text)
        else:
            token_ids = self._checked_ids(options["prompt_ids"])
            text = self._tokenizer.decode(token_ids)
        example = Example(text, options.get("reference"))
        return Prompt(example, self._fit(token_ids, f"option {given[0]}"))

    def _encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self._tokenizer.encode(text), np.int64)

    def _fit(self, token_ids: NDArray[np.int64], what: str) -> NDArray[np.int64]:
        """A prompt's tokens as they go into a context of limited length."""
        room = self.context_length - self._max_new_tokens
        length = len(token_ids)
        if length == 0:
            raise ValueError(
                f"{what} has no tokens, and a model needs at least one to go on from. "
                "Give a prompt that is not empty."
            )
        if length <= room:
            return token_ids
        if self._truncation == "left":
            return token_ids[length - room :]
        raise ValueError(
            f"{what} has {length} tokens, and there is room for {room} beside "
            f"max_new_tokens={self._max_new_tokens} in context_length={self.context_length}. Give "
            f"context_length={length + self._max_new_tokens} or more, or "
            "prompt_truncation='left' to keep only the end of long prompts."
        )

    def _checked_index(self, options: Mapping[str, Any]) -> int:
        index, count = options["prompt_index"], len(self._prompts)
        if not isinstance(index, (int, np.integer)) or not 0 <= index < count:
            raise ValueError(
                f"prompt_index is a whole number from 0 to {count - 1}, the prompts of this "
                f"split, got {index!r}."
            )
        if "reference" in options:
            raise ValueError("prompt_index brings its own reference; give only one of them.")
        return int(index)

    def _checked_ids(self, value: Any) -> NDArray[np.int64]:
        ids = np.asarray(value)
        size = self._tokenizer.vocab_size
        integers = ids.ndim == 1 and ids.size > 0 and np.issubdtype(ids.dtype, np.integer)
        if not integers or ids.min() < 0 or ids.max() >= size:
            raise ValueError(
                f"option prompt_ids is a list of token ids from 0 to {size - 1}, got {value!r}."
            )
        return ids.astype(np.int64)
