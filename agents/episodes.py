"""Episodes as they come out of a vector environment: the text, and what each token earned."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from textgym.rendering import Transcript
from textgym.tokenizer import Tokenizer


class Outcome(NamedTuple):
    """What there is to count of an episode, in some fifty bytes.

    Attributes:
        prompt: A number by which its prompt is told from others.
        length: Tokens of the completion.
        scores: See `Episode`.
        score: See `Episode`.
        success: See `Episode`.
        truncated: See `Episode`.
    """

    prompt: int
    length: int
    scores: Mapping[str, float]
    score: float
    success: bool | None
    truncated: bool


@dataclass(frozen=True)
class Episode:
    """A finished episode.

    Attributes:
        prompt: The prompt's text.
        text: The completion's text.
        token_ids: The completion's tokens.
        rewards: What each of them earned.
        scores: What each reward paid in all, without its weight, by name.
        score: What the text is worth: the sum of the scores, each times its weight. That is the
            sum of the rewards, unless weights changed with training.
        success: Whether the text solves its task; None if nobody can tell.
        truncated: Whether it was cut: at the end of the budget, unless that is the end of the
            task (`budget_is_terminal`).
        replies: In a task of several turns what was answered, after how many tokens.
    """

    prompt: str
    text: str
    token_ids: list[int]
    rewards: list[float]
    scores: Mapping[str, float]
    score: float
    success: bool | None = None
    truncated: bool = False
    replies: Sequence[tuple[int, str]] = ()

    @property
    def outcome(self) -> Outcome:
        """What there is to count of it."""
        prompt = crc32(self.prompt.encode("utf-8", "surrogatepass"))
        length = len(self.token_ids)
        return Outcome(prompt, length, self.scores, self.score, self.success, self.truncated)

    def transcript(self, tokenizer: Tokenizer) -> Transcript:
        """The episode as it is shown to people."""
        prompt_ids = np.array(tokenizer.encode(self.prompt), np.int64)
        pieces = tokenizer.pieces(prompt_ids, self.token_ids)
        replies = [(place, text) for place, text in self.replies]
        return Transcript(self.prompt, pieces, self.rewards, replies)


class EpisodeRecorder:
    """Puts the steps of a vector environment together to episodes.

    Args:
        num_envs: Number of rows.
    """

    def __init__(self, num_envs: int) -> None:
        self._tokens: list[list[int]] = [[] for _ in range(num_envs)]
        self._rewards: list[list[float]] = [[] for _ in range(num_envs)]

    def add(
        self,
        actions: NDArray[Any],
        rewards: NDArray[Any],
        dones: NDArray[Any],
        infos: Sequence[Mapping[str, Any]],
        *,
        rows: NDArray[np.intp] | None = None,
    ) -> dict[int, Episode]:
        """Take one step, as SB3 gives it.

        Args:
            actions: A token a row.
            rewards: What it was paid.
            dones: Whether its episode ended.
            infos: From the environment.
            rows: In which a token was written, int (k,); None for all.

        Returns:
            The episodes that ended with it, by row.
        """
        tokens, paid = actions.reshape(-1).tolist(), rewards.tolist()
        for row in range(len(tokens)) if rows is None else rows.tolist():
            self._tokens[row].append(int(tokens[row]))
            self._rewards[row].append(paid[row])
        ended = {}
        for row in np.flatnonzero(dones).tolist():
            info = infos[row]
            ended[row] = Episode(
                info["prompt"],
                info["text"],
                self._tokens[row],
                self._rewards[row],
                info["scores"],
                info["score"],
                info.get("is_success"),
                info.get("TimeLimit.truncated", False),
                info.get("replies", ()),
            )
            self._tokens[row], self._rewards[row] = [], []
        return ended

    def state(self) -> dict[str, Any]:
        """The episodes that have not ended, JSON-able: "tokens" and "rewards" of each row."""
        return copy.deepcopy({"tokens": self._tokens, "rewards": self._rewards})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the episodes of such a state.

        Raises:
            ValueError: If it is of another number of rows.
        """
        if len(state["tokens"]) != len(self._tokens):
            raise ValueError(
                f"the state has {len(state['tokens'])} rows, and there are {len(self._tokens)}; "
                "go on with as many environments as before."
            )
        self._tokens, self._rewards = copy.deepcopy((state["tokens"], state["rewards"]))

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """Forget the unfinished episodes of rows, bool (n,)."""
        for row in rows.nonzero()[0].tolist():
            self._tokens[row], self._rewards[row] = [], []
