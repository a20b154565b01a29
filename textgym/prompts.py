"""The prompts that episodes begin with: as tokens, drawn by chance or asked for."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from textgym import bandits
from textgym.arguments import as_count, check_options
from textgym.bandits import Bandit, BanditSpec
from textgym.example_data import example_as_data, example_from_data
from textgym.prompt_format import PromptFormat
from textgym.registry import did_you_mean
from textgym.tasks.base import Example, Stream, Task
from textgym.templates import Template

PromptTruncation: TypeAlias = Literal["error", "left"]
"""What becomes of a prompt that is longer than its room: an error, or its end is kept."""

MOST_CHARACTERS = 1_000_000
"""Of a prompt; one word of so many takes a tokenizer seconds, and ten times as many minutes."""

_CHOICES = ("prompt", "prompt_ids", "prompt_index")
_OPTIONS = (*_CHOICES, "reference")


class Prompt(NamedTuple):
    """What an episode begins with.

    Attributes:
        example: The example of the task, as rewards see it: without a template.
        token_ids: What the agent sees, int64 (p,).
        template: Which template it was put into, by its index; None without templates.
        continues: Whether what is written goes on where the example's prompt ends.
    """

    example: Example
    token_ids: NDArray[np.int64]
    template: int | None = None
    continues: bool = True


class Prompts:
    """The prompts of one split of a task, tokenised to fit a context.

    Those of a split that is in memory are tokenised at once, so that what does not fit is found
    before anything is done; others when they are drawn.

    Args:
        task: The task.
        split: Whose prompts are drawn.
        form: Makes tokens of them.
        templates: Ways to put a prompt; empty to leave prompts as they are.
        selection: How templates are chosen; see `textgym.bandits.make`.
        room: Places of the context that are kept for what is written.
        context_length: Length of the context, L. None takes what the longest prompt of any
            split needs, so that training and evaluation have the same spaces.
        truncation: What becomes of longer prompts.

    Attributes:
        context_length: L, in tokens.
        templates: The templates.
        selection: Chooses between them; None without templates.

    Raises:
        ValueError: If a prompt is empty or does not fit, the context has no room for one, or its
            length is not given and cannot be found out.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        form: PromptFormat,
        *,
        templates: Sequence[str] = (),
        selection: BanditSpec = "uniform",
        room: int,
        context_length: int | None,
        truncation: PromptTruncation,
    ) -> None:
        if truncation not in get_args(PromptTruncation):
            raise ValueError(f"prompt_truncation is 'error' or 'left', got {truncation!r}.")
        self._form = form
        self._split = split
        self.templates = tuple(Template(text) for text in templates)
        # Checked where there are no templates, too. The policy may be learning meanwhile.
        bandit = bandits.make(selection, max(len(templates), 1), discount=bandits.TRAINING_DISCOUNT)
        self.selection: Bandit | None = bandit if templates else None
        if not templates and not isinstance(bandit, bandits.Uniform):
            raise ValueError(
                f"prompts={selection!r} chooses between templates, and there are none. Give "
                'templates, such as ["{prompt}", "Question: {prompt}"].'
            )
        self._ways: Sequence[Template | None] = self.templates or (None,)
        self._continues = [
            not form.is_chat and (way is None or way.text.endswith("{prompt}"))
            for way in self._ways
        ]
        self._room = room
        self._truncation = truncation
        self._of_split = task.split(split)
        self.group_by(1)
        self.restart()
        in_memory = isinstance(self._examples, tuple)
        self._indices: dict[int, int] = {}
        encoded: dict[int, list[NDArray[np.int64]]] = {}
        if context_length is None:
            self._check_all_known(task)
            encoded = {id(example): self._variants(example) for example in task.examples}
            longest = max(len(ids) for variants in encoded.values() for ids in variants)
            context_length = room + longest
        elif as_count("context_length", context_length) <= room:
            raise ValueError(
                f"context_length={context_length!r} leaves no room for a prompt beside the {room} "
                "tokens that may be written (max_new_tokens, and replies). Give a larger "
                "context_length, or None for what the task's longest prompt needs."
            )
        self.context_length = int(context_length)
        self._prompts: list[list[Prompt]] = []  # of each example, one for each template
        if in_memory:
            assert isinstance(self._examples, tuple)
            self._indices = {id(example): i for i, example in enumerate(self._examples)}
            self._prompts = [
                self._fitting(example, encoded.get(id(example)) or self._variants(example), index)
                for index, example in enumerate(self._examples)
            ]

    def restart(self) -> None:
        """Begin a stream anew, with a place of its own in it; for prompts in memory nothing."""
        of_split = self._of_split
        self._examples = copy.deepcopy(of_split) if isinstance(of_split, Stream) else of_split

    def group_by(self, size: int) -> None:
        """From now on give each prompt that is drawn to so many episodes, one after another."""
        self._group_size, self._copies = size, 0

    def draw(self, generators: Sequence[np.random.Generator]) -> list[Prompt]:
        """A prompt by each of the generators, all prompts being as likely."""
        if self._group_size > 1:
            return [self._draw_in_groups(generator) for generator in generators]
        if self.selection is None and self._prompts:
            prompts, count = self._prompts, len(self._prompts)
            # random() costs a tenth of integers(), and this is done for every episode.
            return [prompts[int(generator.random() * count)][0] for generator in generators]
        return [self._draw(generator) for generator in generators]

    def choose(self, options: Mapping[str, Any]) -> Prompt:
        """The prompt that the options of a reset ask for.

        Args:
            options: `prompt` or `prompt_ids`, with a `reference` if wanted, or `prompt_index`. Of
                templates, a `prompt` is put by the first.

        Raises:
            ValueError: On an unknown option, or a prompt that does not fit.
        """
        check_options(options)
        if "group_size" in options:
            raise ValueError(
                "prompts in groups are for rows that share them: group_size is a reset option of "
                "the vector environment, gym.make_vec('TextGen-v0', n), and for Stable-Baselines3 "
                "of make_sb3_vec_env('TextGen-v0', n)."
            )
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
            return self._chosen(self._checked_index(options))
        if "prompt" in options:
            example = _as_example(options["prompt"], options.get("reference"))
            return self._fitting(example, [self._encode(example, self._ways[0])], "option prompt")[
                0
            ]
        token_ids = self._checked_ids(options["prompt_ids"])
        example = Example(self._form.tokenizer.decode(token_ids), options.get("reference"))
        return Prompt(example, self._fit(token_ids, "option prompt_ids"))

    def learn(self, prompt: Prompt, score: float) -> None:
        """Tell the choice between templates what the text that a drawn prompt got is worth."""
        if self.selection is not None and prompt.template is not None:
            self.selection.update(prompt.template, score)

    def forget(self, prompt: Prompt) -> None:
        """Tell the choice between templates that a drawn prompt was given up."""
        if self.selection is not None and prompt.template is not None:
            self.selection.forget(prompt.template)

    def repeat(self, prompt: Prompt) -> None:
        """Tell the choice between templates that a drawn prompt is given once more."""
        if self.selection is not None and prompt.template is not None:
            self.selection.repeat(prompt.template)

    def as_data(self, prompt: Prompt) -> dict[str, Any] | None:
        """A prompt that was drawn, JSON-able; None if its columns are nothing that JSON knows."""
        index = self._indices.get(id(prompt.example))
        example = example_as_data(prompt.example) if index is None else index
        if example is None:
            return None
        return {
            "example": example,
            "token_ids": prompt.token_ids.tolist(),
            "template": prompt.template,
            "continues": prompt.continues,
        }

    def from_data(self, data: Mapping[str, Any]) -> Prompt:
        """The prompt of which `as_data` told.

        Raises:
            ValueError: If there are fewer examples now.
        """
        example = data["example"]
        if isinstance(example, int):
            if not example < len(self._indices):
                raise ValueError(
                    f"prompt {example} of split {self._split!r} is wanted, and there are "
                    f"{len(self._indices)}. Go on with the prompts that were there before."
                )
            assert isinstance(self._examples, tuple)
            made: Example = self._examples[example]
        else:
            made = example_from_data(example)
        token_ids = np.array(data["token_ids"], np.int64)
        return Prompt(made, token_ids, data["template"], data["continues"])

    def fingerprint(self) -> str:
        """Tells these prompts from others, as far as they are in memory."""
        told = hashlib.sha256(repr((self._split, self.context_length)).encode())
        told.update(repr([template.text for template in self.templates]).encode())
        for variants in self._prompts:
            told.update(repr(variants[0].example).encode("utf-8", "surrogatepass"))
            for prompt in variants:
                told.update(prompt.token_ids.tobytes())
        return told.hexdigest()

    def state(self) -> dict[str, Any]:
        """Which prompts are to come, JSON-able: of a stream, if it can tell, and of a group."""
        tell = getattr(self._examples, "state", None)
        copied = self.as_data(self._copied) if self._copies else None
        return {
            "stream": None if tell is None else dict(tell()),
            "group_size": self._group_size,
            "copies": 0 if copied is None else self._copies,
            "copied": copied,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the prompts that were to come in another."""
        self.group_by(state["group_size"])
        self._copies = state["copies"]
        if state["copied"] is not None:
            self._copied = self.from_data(state["copied"])
        if state["stream"] is not None:
            self._examples.load_state(state["stream"])  # type: ignore[union-attr]

    def _draw_in_groups(self, generator: np.random.Generator) -> Prompt:
        if not self._copies:
            self._copied, self._copies = self._draw(generator), self._group_size
        else:
            self.repeat(self._copied)
        self._copies -= 1
        return self._copied

    def _draw(self, generator: np.random.Generator) -> Prompt:
        if self._prompts:
            variants = self._prompts[int(generator.random() * len(self._prompts))]
        elif isinstance(self._examples, Stream):
            variants = self._fitting_now(self._examples.draw(generator), "a prompt")
        else:
            variants = self._of(int(generator.random() * len(self._examples)))
        return variants[0 if self.selection is None else self.selection.choose(generator)]

    def _chosen(self, index: int) -> Prompt:
        """The prompt of that index; templates take turns, so that each gets its share."""
        variants = self._of(index)
        return variants[index % len(variants)]

    def _of(self, index: int) -> list[Prompt]:
        """The prompt of that index, in each of the templates."""
        if self._prompts:
            return self._prompts[index]
        assert not isinstance(self._examples, Stream)
        return self._fitting_now(self._examples[index], index)

    def _variants(self, example: Example) -> list[NDArray[np.int64]]:
        """The tokens of an example's prompt, in each of the templates."""
        return [self._encode(example, way) for way in self._ways]

    def _encode(self, example: Example, way: Template | None) -> NDArray[np.int64]:
        put = example if way is None else way.apply(example)
        if len(put.prompt) > MOST_CHARACTERS:
            raise ValueError(
                f"a prompt that begins with {put.prompt[:20]!r} has {len(put.prompt):,} "
                f"characters, and {MOST_CHARACTERS:,} are read at most: no model has a context "
                "for more. Cut it into pieces, or leave it out."
            )
        return np.array(self._form.encode(put), np.int64)

    def _fitting_now(self, example: Example, what: int | str) -> list[Prompt]:
        return self._fitting(example, self._variants(example), what)

    def _fitting(
        self, example: Example, variants: Sequence[NDArray[np.int64]], what: int | str
    ) -> list[Prompt]:
        if isinstance(what, int):
            what = f"prompt {what} of split {self._split!r}"
        return [
            Prompt(
                example,
                self._fit(token_ids, what),
                template if self.templates else None,
                self._continues[template],
            )
            for template, token_ids in enumerate(variants)
        ]

    def _check_all_known(self, task: Task) -> None:
        unknown = [split for split, e in task.splits.items() if not isinstance(e, tuple)]
        if unknown:
            raise ValueError(
                f"the prompts of task {task.name!r} (split {unknown[0]!r}) are read as they are "
                "needed, so that the longest is not known. Give context_length, in tokens, for "
                "the prompt and max_new_tokens together; prompt_truncation='left' cuts what is "
                "longer."
            )

    def _fit(self, token_ids: NDArray[np.int64], what: str) -> NDArray[np.int64]:
        """A prompt's tokens as they go into a context of limited length."""
        room = self.context_length - self._room
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
            f"{what} has {length} tokens, and there is room for {room} beside the {self._room} "
            f"that may be written, in context_length={self.context_length}. Give "
            f"context_length={length + self._room} or more, or "
            "prompt_truncation='left' to keep only the end of long prompts."
        )

    def _checked_index(self, options: Mapping[str, Any]) -> int:
        if isinstance(self._examples, Stream):
            raise ValueError("prompt_index: the prompts of a stream have no index.")
        index, count = options["prompt_index"], len(self._examples)
        whole = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
        if not whole or not 0 <= index < count:
            raise ValueError(
                f"prompt_index is a whole number from 0 to {count - 1}, the prompts of this "
                f"split, got {index!r}."
            )
        if "reference" in options:
            raise ValueError("prompt_index brings its own reference; give only one of them.")
        return int(index)

    def _checked_ids(self, value: Any) -> NDArray[np.int64]:
        ids = np.asarray(value)
        size = self._form.tokenizer.vocab_size
        integers = ids.ndim == 1 and ids.size > 0 and np.issubdtype(ids.dtype, np.integer)
        if not integers or ids.min() < 0 or ids.max() >= size:
            raise ValueError(
                f"option prompt_ids is a list of token ids from 0 to {size - 1}, got {value!r}."
            )
        return ids.astype(np.int64)


def _as_example(prompt: Any, reference: str | None) -> Example:
    """An example of a prompt as people give it: a text, or messages."""
    if isinstance(prompt, str):
        return Example(prompt, reference)
    try:
        return Example.chat(prompt, reference)
    except (TypeError, ValueError) as error:
        raise ValueError(f"option prompt is a string or a list of messages: {error}") from error
