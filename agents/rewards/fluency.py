"""How likely a frozen language model finds what is written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.extras import require
from textgym.rewards.base import RewardError
from textgym.tokenizer import BUILTIN

if TYPE_CHECKING:
    from agents.backbone import DType
    from agents.rewards.frozen_lm import FrozenLM, TextReader

ROOM = 64
"""Contexts are made for a multiple of this many tokens, so that few are ever made anew."""


class Fluency:
    r"""The mean log-probability of the text by a frozen language model, nats a token, at most 0.

    After t tokens the score is $s_t = \frac{1}{t} \sum_{i=1}^{t} \log p(x_i | prompt, x_{<i})$,
    and a token earns $s_t - s_{t-1}$, with $s_0 = 0$: the first is paid its log-probability, and
    each later one something if it was likelier than those before it on average. The token that
    ends the text counts as any other. An episode always has a token, so that the empty text earns
    what it cost to end it at once.

    The model reads each token once and keeps its keys and values. It must have the tokenizer of
    the environment, and reads the prompt as the agent sees it: cut, or put by a chat template.

    Args:
        model: A causal language model: "builtin", a local directory or a hub id.
        device: "auto" (an accelerator where there is one), "cpu", "cuda", ...
        dtype: What the model computes in, "float32" or "bfloat16".

    Raises:
        MissingExtra: If torch is not installed.
        FileNotFoundError: If there is no such model.
        ValueError: If device or dtype is unknown.
        RewardError: When an episode begins, if the environment's tokenizer is another, or the
            prompt and the budget are longer than the model can read.
    """

    score_range: ClassVar[tuple[float, float]] = (-math.inf, 0.0)
    needs: ClassVar[str] = "a language model with the same tokenizer; torch, transformers"

    def __init__(
        self, model: str = BUILTIN, device: str = "auto", dtype: DType = "float32"
    ) -> None:
        require("torch", extra="agents", wanted_by="reward 'fluency'")
        # Only now, since `textgym list` reads docstrings and does not wait for torch.
        from agents.rewards.frozen_lm import frozen_lm

        try:
            self._lm: FrozenLM = frozen_lm(model, device, dtype)
        except ValueError as error:
            raise ValueError(f"fluency: {error}") from error
        self._reader: TextReader | None = None
        self._capacity = 0
        self._set_rows(0)

    def __getstate__(self) -> dict[str, Any]:
        """All but keys and values, which are read again."""
        return {**self.__dict__, "_reader": None}

    def start(self, rows: Rows, completions: Completions) -> None:
        """Note the prompts of `rows`; they are read together with their first token."""
        if len(self._counts) != completions.num_rows:
            self._set_rows(completions.num_rows)
        problem = self._lm.differs_from(completions.tokenizer)
        if problem:
            raise RewardError("fluency", problem, completions.sample(int(rows[0])))
        for row in rows.tolist():
            self._prompt_lengths[row] = len(completions.prompt_ids(row))
            self._make_room(row, completions)
        self._replied[rows] = 0
        self._sums[rows] = self._paid[rows] = 0.0
        self._counts[rows] = 0
        if self._reader is not None:
            self._reader.known[rows] = False

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What each token changed the mean by, float32 (k,)."""
        if self._reader is None:
            self._reader = self._lm.reader(completions.num_rows, self._capacity)
        # What was said between two turns has not been read.
        replied = completions.replied[rows]
        self._reader.known[rows[replied != self._replied[rows]]] = False
        self._replied[rows] = replied
        self._catch_up(self._reader, rows, completions)
        self._sums[rows] += self._reader.write(rows, tokens)
        self._counts[rows] += 1
        rewards = (self._sums[rows] / self._counts[rows] - self._paid[rows]).astype(np.float32)
        # What was paid and not what was meant: the rounding of each is made good by the next.
        self._paid[rows] += rewards
        return rewards

    def _set_rows(self, num_rows: int) -> None:
        self._prompt_lengths = np.zeros(num_rows, np.int64)
        self._replied = np.zeros(num_rows, np.int64)
        self._sums = np.zeros(num_rows)
        self._paid = np.zeros(num_rows)
        self._counts = np.zeros(num_rows, np.int64)
        self._reader = None

    def _catch_up(self, reader: TextReader, rows: Rows, completions: Completions) -> None:
        """Let the reader know `rows` to the token before the one just written."""
        unread = rows[~reader.known[rows]]
        if len(unread):
            contexts = [completions.context_ids(row)[:-1].tolist() for row in unread.tolist()]
            reader.begin(unread, contexts)

    def _make_room(self, row: int, completions: Completions) -> None:
        """See to it that the reader has places for a row's prompt and a whole text."""
        needed = int(self._prompt_lengths[row]) + completions.room
        most = self._lm.positions
        if most is not None and needed > most:
            problem = (
                f"has a model that reads {most} tokens, and the prompt and max_new_tokens are "
                f"{needed}. Take a shorter prompt, a smaller max_new_tokens or another model"
            )
            raise RewardError("fluency", problem, completions.sample(row))
        if needed > self._capacity:
            rounded = -(-needed // ROOM) * ROOM
            self._capacity = rounded if most is None else min(rounded, most)
            self._reader = None
