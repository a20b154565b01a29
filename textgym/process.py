"""The decision process: task, tokenizer and reward joined by the dynamics, for a batch of rows."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgym import dynamics, rewards, tasks
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.prompts import Prompts, PromptTruncation
from textgym.rendering import Transcript
from textgym.rewards import Every, RewardSpec, Timing
from textgym.tasks import Task
from textgym.tokenizer import BUILTIN, Tokenizer

TaskSpec: TypeAlias = "str | Mapping[str, Any] | Task"
"""Whatever says which task is meant; JSON-able but for a task of one's own."""

Transition: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminated and truncated of the rows that took a step, each of shape (k,)."""


class TextProcess:
    """A batch of `num_rows` episodes of writing, each at its own place.

    `TextGenEnv` is one row of it, `TextGenVectorEnv` many. For the arguments see `TextGenEnv`.

    Attributes:
        tokenizer: The tokenizer.
        contexts: The tokens of all rows.
        completions: The text written so far, as rewards see it.
        ended: Rows whose episode is over, or never began, bool (n,): the array of `completions`.
        reward: The weighted sum of rewards.
        observation_space: `Dict(input_ids, attention_mask)` of one row.
        action_space: `Discrete(vocabulary)` of one row.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        task: TaskSpec = "continuation",
        split: str = "train",
        reward: RewardSpec = "sentiment",
        timing: Timing = "immediate",
        every: Every = "token",
        tokenizer: str | Tokenizer = BUILTIN,
        max_new_tokens: int = 32,
        context_length: int | None = None,
        stop: Sequence[str] = (),
        budget_is_terminal: bool = False,
        prompt_truncation: PromptTruncation = "error",
        max_episode_steps: int | None = None,
        record_rewards: bool = False,
    ) -> None:
        max_new_tokens = as_count("max_new_tokens", max_new_tokens)
        if isinstance(stop, str) or not all(isinstance(s, str) and s for s in stop):
            raise TypeError(f"stop is a list of non-empty strings, such as ['.'], got {stop!r}.")
        self.tokenizer = (
            tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_pretrained(tokenizer)
        )
        self.num_rows = num_rows
        self.reward = rewards.make(reward, timing, every)
        self.max_new_tokens = max_new_tokens
        self._step_limit = (
            None if max_episode_steps is None else as_count("max_episode_steps", max_episode_steps)
        )
        self._stop = tuple(stop)
        self._budget_is_terminal = budget_is_terminal
        self._prompts = Prompts(
            tasks.make(task),
            split,
            self.tokenizer,
            max_new_tokens=max_new_tokens,
            context_length=context_length,
            truncation=prompt_truncation,
        )
        context_length = self._prompts.context_length
        self.contexts = dynamics.empty(num_rows, context_length, self.tokenizer.pad_token_id)
        self._limits = np.zeros(num_rows, np.int64)  # the ends at which budgets are spent
        self.completions = Completions(self.contexts, self.tokenizer, max_new_tokens)
        self.ended = self.completions.ended
        self._token_rewards = np.zeros((num_rows, max_new_tokens)) if record_rewards else None

        vocab_size = self.tokenizer.vocab_size
        # With no dimension: numpy compares with an array in half the time of a Python number.
        self._vocab_size = np.array(vocab_size, np.uint64)
        self._ends_text = np.arange(vocab_size) == self.tokenizer.eos_token_id
        self.action_space: spaces.Space[Any] = spaces.Discrete(vocab_size)
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            input_ids=spaces.Box(0, vocab_size - 1, (context_length,), np.int64),
            attention_mask=spaces.Box(0, 1, (context_length,), np.int8),
        )

    def begin(
        self,
        rows: Rows,
        generators: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin an episode in each of `rows`, int (k,).

        Args:
            rows: Whose episodes begin.
            generators: Draws the prompt, one for each of `rows`; drawn from once a row, whatever
                the options say.
            options: A prompt for all of them instead of one drawn; see `Prompts.choose`.

        Raises:
            ValueError: On an unknown option, or a prompt that does not fit.
        """
        chosen = self._prompts.choose(options) if options else None
        prompts = self._prompts.draw(generators)
        if chosen is not None:
            prompts = [chosen] * len(rows)
        dynamics.begin(self.contexts, rows, [prompt.token_ids for prompt in prompts])
        where = dynamics.index(rows, self.num_rows)
        self._limits[where] = self.contexts.ends[where] + self.max_new_tokens
        self.completions.begin(rows, [prompt.example for prompt in prompts])
        self.reward.start(rows, self.completions)

    def as_tokens(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """Actions as token ids, int64.

        Raises:
            ValueError: If they are not whole numbers, or not in the vocabulary.
        """
        if actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions are token ids, whole numbers, got an array of {actions.dtype}: "
                f"{actions!r}."
            )
        tokens = actions if actions.dtype == np.int64 else actions.astype(np.int64)
        # Read as unsigned, a negative number is larger than any vocabulary.
        (unknown,) = (tokens.view(np.uint64) >= self._vocab_size).nonzero()
        if len(unknown):
            raise ValueError(
                f"actions are token ids from 0 to {self.tokenizer.vocab_size - 1}, "
                f"got {actions[unknown[0]]}."
            )
        return tokens

    def step(self, rows: Rows, tokens: NDArray[np.int64]) -> Transition:
        """Write a token in each of `rows` and pay for it.

        Args:
            rows: Rows whose episode goes on, int (k,).
            tokens: From `as_tokens`, int64 (k,).

        Returns:
            Rewards float64 (k,), terminated bool (k,), truncated bool (k,).

        Raises:
            RewardError: If a reward failed.
        """
        where = dynamics.index(rows, self.num_rows)
        dynamics.append(self.contexts, where, tokens)
        terminated: NDArray[np.bool_] = self._ends_text[tokens]
        if self._stop:
            terminated |= self._stopped(rows)
        spent: NDArray[np.bool_] = self.contexts.ends[where] >= self._limits[where]
        if self._budget_is_terminal:
            terminated |= spent
        truncated = spent > terminated  # an episode that is over was not cut
        if self._step_limit is not None:
            truncated |= self.completions.lengths(rows) >= self._step_limit
        self.ended[where] = terminated | truncated
        paid = self.reward.step(rows, tokens, self.completions)
        if self._token_rewards is not None:
            self._token_rewards[rows, self.completions.lengths(rows) - 1] = paid
        return paid, terminated, truncated

    def step_info(self) -> dict[str, Any]:
        """What is known of the rows that just took a step, for `info`: columns of k values.

        The arrays are the caller's from then on.
        """
        return {"reward_components": self.reward.components}

    def final_info(self, rows: Rows) -> dict[str, Any]:
        """What is known of rows whose episode is over, for `info`: columns of k values."""
        info: dict[str, Any] = {
            **self.reset_info(rows),
            "text": [self.completions.text(row) for row in rows.tolist()],
            "score": self.reward.total(rows),
            "scores": {name: scores[rows] for name, scores in self.reward.scores.items()},
        }
        success = self.reward.success(rows)
        if success is not None:
            info["is_success"] = success
        return info

    def reset_info(self, rows: Rows) -> dict[str, Any]:
        """What is known of rows whose episode begins, for `info`: columns of k values."""
        return {"prompt": [self.completions.examples[row].prompt for row in rows.tolist()]}

    def action_mask(self) -> NDArray[np.bool_]:
        """Tokens that make sense in a text, bool (vocabulary,): all but special ones, and EOS."""
        mask = np.ones(self.tokenizer.vocab_size, np.bool_)
        mask[list(self.tokenizer.special_ids)] = False
        if self.tokenizer.eos_token_id is not None:
            mask[self.tokenizer.eos_token_id] = True
        return mask

    def transcript(self, row: int) -> Transcript:
        """A row's episode so far, as it is shown to people; needs `record_rewards`."""
        if self._token_rewards is None:
            raise RuntimeError("rewards were not recorded; give record_rewards=True.")
        pieces = self.completions.pieces(row)
        paid = self._token_rewards[row, : len(pieces)].tolist()
        return Transcript(self.completions.examples[row].prompt, pieces, paid)

    def _stopped(self, rows: Rows) -> NDArray[np.bool_]:
        texts = [self.completions.text(row) for row in rows.tolist()]
        return np.array([any(stop in text for stop in self._stop) for text in texts], np.bool_)


class RewardProgress:
    """What an environment tells of a reward that follows progress, and takes back."""

    process: TextProcess

    def reward_weights(self) -> dict[str, float]:
        """The weight of each reward in the episodes that begin now, by name."""
        return self.process.reward.current_weights

    def reward_state(self) -> dict[str, Any]:
        """What the reward has learned of the course of training, JSON-able; mostly empty."""
        return self.process.reward.state_dict()

    def load_reward_state(self, state: Mapping[str, Any]) -> None:
        """Let the reward go on from such a state.

        Raises:
            ValueError: If it is the state of another reward.
        """
        self.process.reward.load_state_dict(state)


def as_count(name: str, value: Any) -> int:
    """A whole number of at least 1, of Python's or of numpy's; raises ValueError if it is not."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"{name} is a whole number of at least 1, got {value!r}.")
    return count
