r"""From a score of a text to a reward at every token.

With $s(x_t)$ the score of the text after token $t$ and $s(x_0) = 0$, the immediate reward is

$$ r_t = s(x_t) - s(x_{t-1}), \qquad \sum_{t=1}^{T} r_t = s(x_T), $$

what the score gained by the token. The delayed reward pays $s(x_T)$ with the last token and
nothing before. Both add up to the score of the finished text, so without discounting they are
one objective and can be compared fairly. The difference is potential-based shaping (Ng, Harada
and Russell, 1999) with the score as the potential, the final score being the task's reward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions, Sample
from textgym.dynamics import Rows
from textgym.rewards.base import Reward, Score

Timing: TypeAlias = Literal["immediate", "delayed"]
"""When a score is paid: as the text gains it, or whole with the last token."""

Every: TypeAlias = Literal["token", "word", "sentence"]
"""How often an immediate score is taken: a score that costs may wait for the end of a unit."""

_UNFINISHED = {
    "word": re.compile(r"\s*\S*\Z"),
    "sentence": re.compile(r"[^.!?…。！？\n]*\Z"),
}


def shape(rewards_or_score: Reward | Score, timing: Timing, every: Every) -> Reward:
    """Make a reward with the wanted timing.

    A `Reward` pays by the token already: `every` does not touch it, and delayed it pays its sum
    with the last token.
    """
    if isinstance(rewards_or_score, Reward):
        return rewards_or_score if timing == "immediate" else DelayedReward(rewards_or_score)
    if timing == "immediate":
        return ImmediateScore(rewards_or_score, every)
    return DelayedScore(rewards_or_score)


class ImmediateScore:
    """Pays each token what the score gained by it.

    Args:
        score: The score.
        every: With "word" or "sentence" only whole words or sentences are scored, and the token
            that shows one to be whole is paid for it; the end of the episode counts as one.
    """

    def __init__(self, score: Score, every: Every = "token") -> None:
        self._score = score
        self._unfinished = _UNFINISHED.get(every)
        self._text_only = getattr(score, "text_only", False) or self._unfinished is not None
        self._paid = np.zeros(0)
        self._scored: list[str] = []

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing is paid yet in `rows`."""
        if len(self._scored) != completions.num_rows:
            self._paid = np.zeros(completions.num_rows)
            self._scored = [""] * completions.num_rows
        self._paid[rows] = 0.0
        for row in rows.tolist():
            self._scored[row] = ""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The gain of each row's score, float32 (k,); 0 where there was nothing to score."""
        rewards = np.zeros(len(rows), np.float32)
        due, samples = self._due(rows, completions)
        if samples:
            scores = _scores(self._score, samples)
            rewards[due] = scores - self._paid[rows[due]]
            self._paid[rows[due]] = scores
        return rewards

    def _due(self, rows: Rows, completions: Completions) -> tuple[list[int], list[Sample]]:
        """Which of `rows` have something new to score, and what."""
        due: list[int] = []
        samples: list[Sample] = []
        ended = completions.ended[rows].tolist()
        for k, row in enumerate(rows.tolist()):
            text = completions.text(row)
            length = None
            if self._unfinished is not None and not ended[k]:
                match = self._unfinished.search(text)
                length = match.start() if match else 0
                text = text[:length]
            # The text of an episode that ends must be scored even if it stayed empty.
            if not self._text_only or text != self._scored[row] or (ended[k] and not text):
                self._scored[row] = text
                due.append(k)
                samples.append(completions.sample(row, length))
        return due, samples


class DelayedScore:
    """Pays the score of the finished text with its last token, and 0 before."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing to prepare."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The score where the episode ended, 0 elsewhere, float32 (k,)."""
        rewards = np.zeros(len(rows), np.float32)
        ended = completions.ended[rows]
        if ended.any():
            rewards[ended] = _scores(self._score, completions.samples(rows[ended]))
        return rewards


class DelayedReward:
    """Holds back what a reward pays, and pays the sum with the last token."""

    def __init__(self, reward: Reward) -> None:
        self._reward = reward
        self._held = np.zeros(0)

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing is held back yet in `rows`."""
        if len(self._held) != completions.num_rows:
            self._held = np.zeros(completions.num_rows)
        self._held[rows] = 0.0
        self._reward.start(rows, completions)

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The sum of the episode's rewards where it ended, 0 elsewhere, float32 (k,)."""
        self._held[rows] += self._reward.step(rows, tokens, completions)
        return np.where(completions.ended[rows], self._held[rows], 0.0).astype(np.float32)


def _scores(score: Score, samples: Sequence[Sample]) -> NDArray[np.float64]:
    scores = np.asarray(score.score(samples), np.float64)
    if scores.shape != (len(samples),):
        raise ValueError(
            f"it returned an array of shape {scores.shape} for {len(samples)} samples; "
            f"expected one number for each, shape ({len(samples)},)"
        )
    return scores
