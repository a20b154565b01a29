"""The decision process: task, tokenizer and reward joined by the dynamics, for a batch of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgym import dynamics, rewards, tasks
from textgym.arguments import as_count, as_texts, check_flag
from textgym.bandits import BanditSpec
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.prompt_format import prompt_format
from textgym.prompts import Prompt, Prompts, PromptTruncation
from textgym.rendering import Transcript
from textgym.rewards import Every, RewardSpec, Timing
from textgym.rewards.deferred import Owed
from textgym.tasks import Task
from textgym.tokenizer import BUILTIN, Tokenizer
from textgym.trials import Trials
from textgym.turns import Reply, Turns, room_for_replies
from textgym.vocabulary import Tokens, VocabularySpec, allowed_ids

TaskSpec: TypeAlias = "str | Mapping[str, Any] | Task"
"""Whatever says which task is meant; JSON-able but for a task of one's own."""

Transition: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminated and truncated of the rows that took a step, each of shape (k,)."""

T = TypeVar("T")

_MOST_TOKENS = 2**31  # which take 18 GiB


class TextProcess:
    """A batch of `num_rows` episodes of writing, each at its own place.

    `TextGenEnv` is one row of it, `TextGenVectorEnv` many. For the arguments see `TextGenEnv`.

    What writes does not depend on what is paid. So where a reward is made elsewhere, a step has
    two halves, as rewards have them (`textgym.rewards.deferred`): `advance` writes, and what it
    returns pays, perhaps later. Second halves run in the order of their first halves.

    Attributes:
        task: The task.
        format: How its prompts become tokens.
        tokenizer: The tokenizer, its end-of-text token being the one that ends the model's turn.
        contexts: The tokens of all rows.
        prompts: The prompts, and what chooses between templates.
        trials: Which template each row has; None without templates.
        completions: The text written so far, as rewards see it.
        ended: Rows whose episode is over, or never began, bool (n,): the array of `completions`.
        reward: The weighted sum of rewards.
        observation_space: `Dict(input_ids, attention_mask)` of one row.
        action_space: `Discrete(vocabulary)` of one row; `Tokens` if not all may be written.
        runs_ahead: Whether second halves may run later: a reward is made elsewhere, and nothing
            that is done depends on what it pays. The choice between templates does.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        task: TaskSpec = "continuation",
        split: str = "train",
        reward: RewardSpec | None = None,
        timing: Timing = "immediate",
        every: Every = "token",
        tokenizer: str | Tokenizer = BUILTIN,
        vocabulary: VocabularySpec | None = None,
        chat: bool | None = None,
        templates: Sequence[str] | None = None,
        prompts: BanditSpec = "uniform",
        max_new_tokens: int = 32,
        context_length: int | None = None,
        stop: Sequence[str] | None = None,
        budget_is_terminal: bool = False,
        prompt_truncation: PromptTruncation = "error",
        max_episode_steps: int | None = None,
        record_rewards: bool = False,
    ) -> None:
        max_new_tokens = as_count("max_new_tokens", max_new_tokens)
        check_flag("budget_is_terminal", budget_is_terminal)
        self.task = tasks.make(task)
        self.format = prompt_format(
            tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_pretrained(tokenizer),
            chat,
        )
        self.tokenizer = self.format.tokenizer
        self.num_rows = num_rows
        self.reward = rewards.make(self.task.reward if reward is None else reward, timing, every)
        self.max_new_tokens = max_new_tokens
        self._step_limit = (
            None if max_episode_steps is None else as_count("max_episode_steps", max_episode_steps)
        )
        if stop is None:  # a chat model ends its turns itself
            stop = () if self.format.is_chat else self.task.stop
        self._stop = as_texts("stop", stop, "['.']")
        self._budget_is_terminal = budget_is_terminal
        interaction = self.task.interaction
        replies = 0 if interaction is None else room_for_replies(interaction, self.format)
        self.prompts = Prompts(
            self.task,
            split,
            self.format,
            templates=as_texts(
                "templates",
                self.task.templates if templates is None else templates,
                "['Question: {prompt}']",
            ),
            selection=prompts,
            room=max_new_tokens + replies,
            context_length=context_length,
            truncation=prompt_truncation,
        )
        context_length = self.prompts.context_length
        if num_rows * context_length > _MOST_TOKENS:
            raise ValueError(
                f"{num_rows} x {context_length} tokens (environments x context length) do not fit "
                f"into memory; expected at most {_MOST_TOKENS}. Give fewer environments, or a "
                "smaller max_new_tokens or context_length."
            )
        self.contexts = dynamics.empty(num_rows, context_length, self.tokenizer.pad_token_id)
        self._limits = np.zeros(num_rows, np.int64)  # the ends at which budgets are spent
        self.completions = Completions(
            self.contexts, self.tokenizer, max_new_tokens, replies, self.format.end_ids
        )
        self.ended = self.completions.ended
        self._turns = (
            None
            if interaction is None
            else Turns(interaction, self.format, self.contexts, self.completions)
        )
        self.trials = None if self.prompts.selection is None else Trials(self.prompts, num_rows)
        self._token_rewards = np.zeros((num_rows, max_new_tokens)) if record_rewards else None
        self.runs_ahead = self.reward.is_remote and self.trials is None and not record_rewards

        vocab_size = self.tokenizer.vocab_size
        # With no dimension: numpy compares with an array in half the time of a Python number.
        self._vocab_size = np.array(vocab_size, np.uint64)
        self.action_space: spaces.Space[Any] = spaces.Discrete(vocab_size)
        self._is_allowed: NDArray[np.bool_] | None = None
        if vocabulary is not None:
            allowed = allowed_ids(vocabulary, self.tokenizer, self.format.end_ids)
            self.action_space = Tokens(vocab_size, allowed)
            self._is_allowed = np.isin(np.arange(vocab_size), allowed)
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            input_ids=spaces.Box(0, vocab_size - 1, (context_length,), np.int64),
            attention_mask=spaces.Box(0, 1, (context_length,), np.int8),
        )

    def begin(
        self,
        rows: Rows,
        generators: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> Callable[[], None]:
        """Begin an episode in each of `rows`, int (k,).

        Args:
            rows: Whose episodes begin.
            generators: Draws the prompt, one for each of `rows`; drawn from once a row, whatever
                the options say.
            options: A prompt for all of them instead of one drawn; see `Prompts.choose`.

        Returns:
            The second half.

        Raises:
            ValueError: On an unknown option, or a prompt that does not fit.
        """
        chosen = self.prompts.choose(options) if options else None
        prompts = self.prompts.draw(generators)
        if chosen is not None:
            for prompt in prompts:
                self.prompts.forget(prompt)
            prompts = [chosen] * len(rows)
        return self.start(rows, prompts, drawn=chosen is None)

    def start(self, rows: Rows, prompts: Sequence[Prompt], *, drawn: bool) -> Callable[[], None]:
        """Begin an episode in each of `rows`, int (k,), with k prompts.

        Args:
            rows: Whose episodes begin.
            prompts: Of each.
            drawn: Whether they were drawn here, and not asked for by somebody.

        Returns:
            The second half.
        """
        dynamics.begin(self.contexts, rows, [prompt.token_ids for prompt in prompts])
        where = dynamics.index(rows, self.num_rows)
        self._limits[where] = self.contexts.ends[where] + self.max_new_tokens
        self.completions.begin(rows, [p.example for p in prompts], [p.continues for p in prompts])
        if self.trials is not None:
            self.trials.begin(rows, prompts, drawn=drawn)
        return self._second(self.reward.begin(rows, self.completions))

    @staticmethod
    def as_array(actions: Any) -> NDArray[Any]:
        """Actions as an array, of whatever they are.

        Raises:
            ValueError: If they are lists of different lengths.
        """
        try:
            return np.asarray(actions)
        except ValueError as error:
            raise ValueError(f"actions are token ids, whole numbers, got {actions!r}.") from error

    def as_tokens(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """Actions as token ids, int64.

        Raises:
            ValueError: If they are not whole numbers, not in the vocabulary, or not allowed.
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
        if self._is_allowed is not None and not self._is_allowed[tokens].all():
            token = tokens[~self._is_allowed[tokens]][0]
            raise ValueError(
                f"token {token} ({self.tokenizer.backend.id_to_token(token)!r}) is none of the "
                f"{self._is_allowed.sum()} that may be written here. Take actions from "
                "action_space.allowed, as a policy does that is made for this action space; or "
                "give the environment another vocabulary."
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
        owed, terminated, truncated = self.advance(rows, tokens)
        return owed.settle(), terminated, truncated

    def advance(
        self, rows: Rows, tokens: NDArray[np.int64]
    ) -> tuple[Owed[NDArray[np.float64]], NDArray[np.bool_], NDArray[np.bool_]]:
        """Write a token in each of `rows`; pay for it, or if it `runs_ahead` have it paid later.

        Arguments and what is returned and raised are those of `step`, but that the rewards, and
        the errors of those that are made elsewhere, are `Owed`.
        """
        where = dynamics.index(rows, self.num_rows)
        dynamics.append(self.contexts, where, tokens)
        terminated: NDArray[np.bool_] = self.completions.is_end[tokens]
        if self._stop:
            terminated |= self._stopped(rows)
        spent: NDArray[np.bool_] = self.contexts.ends[where] >= self._limits[where]
        replies: dict[int, Reply] = {}
        if self._turns is not None:
            replies = self._turns.take(rows, terminated, spent)  # after which some go on
        if self._budget_is_terminal:
            terminated |= spent
        truncated = spent > terminated  # an episode that is over was not cut
        if self._step_limit is not None:
            truncated |= self.completions.lengths(rows) >= self._step_limit
        self.ended[where] = terminated | truncated
        if self.runs_ahead:
            owed = self.reward.submit(rows, tokens, self.completions)
        else:
            paid = self.reward.step(rows, tokens, self.completions)
            owed = Owed(lambda: paid)
            if self._token_rewards is not None:
                self._token_rewards[rows, self.completions.lengths(rows) - 1] = paid
        for row, reply in replies.items():
            self._answer(row, reply)
        if self.trials is not None and self.ended[where].any():
            over = rows[self.ended[rows]]
            self.trials.settle(over, self.reward.total(over))
        return owed, terminated, truncated

    def step_info(self) -> dict[str, Any]:
        """What is known of the rows whose step was just settled, for `info`: columns of k values.

        The arrays are the caller's from then on.
        """
        return {"reward_components": self.reward.components}

    def final_info(self, rows: Rows) -> Callable[[], dict[str, Any]]:
        """What is known of rows whose episode is over, for `info`: columns of k values.

        Returns:
            The second half, which tells.
        """
        info = self.reset_info(rows)
        info["text"] = [self.completions.text(row) for row in rows.tolist()]
        solved = self._solved(rows)
        replies = None
        if self._turns is not None:
            replies = [self.completions.replies(row) for row in rows.tolist()]

        def told() -> dict[str, Any]:
            reward = self.reward
            info["score"] = reward.total(rows)
            info["scores"] = {name: scores[rows] for name, scores in reward.scores.items()}
            success = reward.success(rows) if self.task.success is None else solved
            if success is not None:
                info["is_success"] = success
            if replies is not None:
                info["replies"] = replies
            return info

        return self._second(told)

    def reset_info(self, rows: Rows) -> dict[str, Any]:
        """What is known of rows whose episode begins, for `info`: columns of k values."""
        info: dict[str, Any] = {
            "prompt": [self.completions.examples[row].prompt for row in rows.tolist()]
        }
        if self.trials is not None:
            info["template"] = self.trials.templates(rows)
        return info

    def action_mask(self) -> NDArray[np.bool_]:
        """Tokens that make sense in a text, bool (vocabulary,): ordinary ones, and what ends it.

        Only those that are allowed.
        """
        mask = np.ones(self.tokenizer.vocab_size, np.bool_)
        mask[list(self.tokenizer.special_ids)] = False
        mask |= self.completions.is_end
        return mask if self._is_allowed is None else mask & self._is_allowed

    def transcript(self, row: int) -> Transcript:
        """A row's episode so far, as it is shown to people; needs `record_rewards`."""
        if self._token_rewards is None:
            raise RuntimeError("rewards were not recorded; give record_rewards=True.")
        pieces = self.completions.pieces(row)
        paid = self._token_rewards[row, : len(pieces)].tolist()
        replies = self.completions.replies(row)
        return Transcript(self.completions.examples[row].prompt, pieces, paid, replies)

    def _answer(self, row: int, reply: Reply) -> None:
        """Let the other side speak, unless the episode was cut."""
        if self._turns is not None and not self.ended[row]:
            self._turns.add(row, reply)
            # An answer may be longer than the task said; the row's end is a limit all the same.
            end = self.contexts.ends[row] + dynamics.room(self.contexts, row)
            self._limits[row] = min(self._limits[row] + len(reply.token_ids), end)

    def _solved(self, rows: Rows) -> NDArray[np.bool_] | None:
        """Whether texts that are over solve their task, bool (k,); None if it cannot tell."""
        if self.task.success is None:
            return None
        solved = [bool(self.task.success(sample)) for sample in self.completions.samples(rows)]
        return np.array(solved, np.bool_)

    def _second(self, half: Callable[[], T]) -> Callable[[], T]:
        """A second half; where it need not wait for others, it runs now."""
        if self.runs_ahead:
            return half
        result = half()
        return lambda: result

    def _stopped(self, rows: Rows) -> NDArray[np.bool_]:
        texts = [self.completions.turn_text(row) for row in rows.tolist()]
        return np.array([any(stop in text for stop in self._stop) for text in texts], np.bool_)
