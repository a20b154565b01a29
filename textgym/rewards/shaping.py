r"""From a score of a text to a reward at every token.

With $s(x_t)$ the score of the text after token $t$ and $s(x_0) = 0$, the immediate reward is

$$ r_t = s(x_t) - s(x_{t-1}), \qquad \sum_{t=1}^{T} r_t = s(x_T), $$

what the score gained by the token. The delayed reward pays $s(x_T)$ with the last token and
nothing before. Both add up to the score of the finished text, so without discounting they are
one objective and can be compared fairly. The difference is potential-based shaping (Ng, Harada
and Russell, 1999) with the score as the potential, the final score being the task's reward.

That holds where the end of the budget ends the task, `budget_is_terminal=True`. An episode that
is cut instead is worth its score plus what the learner believes would have followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions, Sample
from textgym.dynamics import Rows
from textgym.rewards.base import (
    RemoteScore,
    Reward,
    RewardError,
    Score,
    Stateful,
    checked,
    described,
)
from textgym.rewards.deferred import DeferrableReward, Owed

Timing: TypeAlias = Literal["immediate", "delayed"]
"""When a score is paid: as the text gains it, or whole with the last token."""

Every: TypeAlias = Literal["token", "word", "sentence"]
"""How often an immediate score is taken: a score that costs may wait for the end of a unit."""

_LARGEST = 1e38
"""Scores beyond this are refused: the difference of two must still be a float32."""

_SENTENCE_ENDS = ".!?…。！？\n"  # noqa: RUF001  # those of Chinese and Japanese among them


def whole_words(text: str) -> int:
    """The length of a text up to its last word that has ended: that white space follows."""
    if text and not text[-1].isspace():
        text = text[: -len(text.rsplit(maxsplit=1)[-1])]
    return len(text.rstrip())


def whole_sentences(text: str) -> int:
    """The length of a text up to its last full stop, other end of a sentence, or line break."""
    return 1 + max(map(text.rfind, _SENTENCE_ENDS))


_WHOLE: dict[str, Callable[[str], int]] = {"word": whole_words, "sentence": whole_sentences}


@runtime_checkable
class Shapeable(Protocol):
    """Something that makes a reward once it knows the timing: rewards made of other rewards."""

    def shaped(self, timing: Timing, every: Every) -> Reward:
        """The reward with this timing."""


def shape(reward: Reward | Score | Shapeable, timing: Timing, every: Every) -> Reward:
    """Make a reward with the wanted timing.

    A `Reward` pays by the token already: `every` does not touch it, and delayed it pays its sum
    with the last token.
    """
    if isinstance(reward, Shapeable):
        return reward.shaped(timing, every)
    if isinstance(reward, Reward):
        return reward if timing == "immediate" else DelayedReward(reward)
    return ImmediateScore(reward, every) if timing == "immediate" else DelayedScore(reward)


def find_state(reward: Any) -> Stateful | None:
    """What has the state of a reward: itself, or what is delayed; None if nothing has.

    A score has none by its contract, and what it offers as one may be the weights of a network.
    """
    if isinstance(reward, DelayedReward):
        reward = reward.inner
    return reward if isinstance(reward, Reward) and isinstance(reward, Stateful) else None


class ImmediateScore(DeferrableReward):
    """Pays each token what the score gained by it.

    Args:
        score: The score.
        every: With "word" or "sentence" only whole words or sentences are scored, and the token
            that shows one to be whole is paid for it; the end of the episode counts as one.
    """

    def __init__(self, score: Score, every: Every = "token") -> None:
        self.inner = score
        self.is_remote = isinstance(score, RemoteScore)
        self._text_only = getattr(score, "text_only", False)
        self._whole = _WHOLE.get(every)
        self._paid = np.zeros(0)
        self._scored: list[str] = []

    def begin(self, rows: Rows, completions: Completions) -> Callable[[], None]:
        """Nothing is scored yet in `rows`, and then nothing is paid."""
        if len(self._scored) != completions.num_rows:
            self._paid = np.zeros(completions.num_rows)
            self._scored = [""] * completions.num_rows
        for row in rows.tolist():
            self._scored[row] = ""

        def settle() -> None:
            self._paid[rows] = 0.0

        return settle

    def submit(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> Owed[NDArray[np.float32]]:
        """The gain of each row's score, float32 (k,); 0 where there was nothing to score."""
        rewards = np.zeros(len(rows), np.float32)
        due, samples = self._due(rows, completions)
        if not samples:
            return Owed(lambda: rewards)
        scores = _asked(self.inner, samples, self.is_remote)
        scored = rows[due]

        def settle() -> NDArray[np.float32]:
            gained = (scores.settle() - self._paid[scored]).astype(np.float32)
            # What was paid and not what was meant, so that the rounding of each reward to
            # float32 is made good by the next and the sum is as near to the score as one float32.
            self._paid[scored] += gained
            rewards[due] = gained
            return rewards

        return Owed(settle, scores.futures)

    def _due(self, rows: Rows, completions: Completions) -> tuple[list[int], list[Sample]]:
        """Which of `rows` have something new to score, and what."""
        due: list[int] = []
        samples: list[Sample] = []
        for k, (row, ended) in enumerate(
            zip(rows.tolist(), completions.ended[rows].tolist(), strict=True)
        ):
            text = completions.text(row)
            length = None
            if self._whole is not None and not ended:
                length = self._whole(text)
                text = text[:length]
            # A token that left the text as it was matters to a score of token ids, and where it
            # ends an episode without any text, which has not been scored before.
            silent_token_counts = (
                not text and ended if self._text_only else ended or self._whole is None
            )
            if text != self._scored[row] or silent_token_counts:
                self._scored[row] = text
                due.append(k)
                # Which tokens make up part of a text is dear to find out; most scores do not ask.
                samples.append(
                    completions.sample(row)._replace(text=text)
                    if self._text_only
                    else completions.sample(row, length)
                )
        return due, samples


class DelayedScore(DeferrableReward):
    """Pays the score of the finished text with its last token, and 0 before."""

    def __init__(self, score: Score) -> None:
        self.inner = score
        self.is_remote = isinstance(score, RemoteScore)

    def begin(self, rows: Rows, completions: Completions) -> Callable[[], None]:
        """Nothing to prepare."""
        return lambda: None

    def submit(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> Owed[NDArray[np.float32]]:
        """The score where the episode ended, 0 elsewhere, float32 (k,)."""
        rewards = np.zeros(len(rows), np.float32)
        ended = completions.ended[rows]
        if not ended.any():
            return Owed(lambda: rewards)
        scores = _asked(self.inner, completions.samples(rows[ended]), self.is_remote)

        def settle() -> NDArray[np.float32]:
            rewards[ended] = scores.settle()
            return rewards

        return Owed(settle, scores.futures)


class DelayedReward:
    """Holds back what a reward pays, and pays the sum with the last token."""

    def __init__(self, reward: Reward) -> None:
        self.inner = reward
        self._held = np.zeros(0)

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing is held back yet in `rows`."""
        if len(self._held) != completions.num_rows:
            self._held = np.zeros(completions.num_rows)
        self._held[rows] = 0.0
        self.inner.start(rows, completions)

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """The sum of the episode's rewards where it ended, 0 elsewhere, float32 (k,)."""
        paid = self.inner.step(rows, tokens, completions)
        self._held[rows] += checked(type(self.inner).__name__, paid, rows, completions)
        return np.where(completions.ended[rows], self._held[rows], 0.0).astype(np.float32)


def checked_scores(score: Score, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """The checked scores of some samples, float64 (k,).

    Raises:
        RewardError: If the score raises, or gives something else than a finite number for each.
    """
    return _checked(score, samples, score.score)


def _asked(score: Score, samples: Sequence[Sample], is_remote: bool) -> Owed[NDArray[np.float64]]:
    """The checked scores of some samples, float64 (k,); of a remote score, later."""
    if is_remote:
        assert isinstance(score, RemoteScore)
        try:
            answer = score.submit(samples)
        except RewardError:
            raise
        except Exception as error:
            raise _reward_error(score, samples, error) from error
        return Owed(lambda: _checked(score, samples, lambda _: answer.result()), [answer])
    scores = checked_scores(score, samples)
    return Owed(lambda: scores)


def _checked(
    score: Score, samples: Sequence[Sample], ask: Callable[[Sequence[Sample]], Any]
) -> NDArray[np.float64]:
    """What a score answers for some samples, checked, float64 (k,)."""
    try:
        returned = ask(samples)
        values = np.asarray(returned)
    except RewardError:
        raise
    except Exception as error:
        raise _reward_error(score, samples, error) from error
    name = type(score).__name__
    if values.shape != (len(samples),) or values.dtype.kind not in "biuf":
        problem = f"returned {described(returned)}; expected {len(samples)} numbers, one a sample"
        raise RewardError(name, problem, samples[0])
    scores = values.astype(np.float64)
    fits = np.abs(scores) <= _LARGEST  # False for a NaN too
    if not fits.all():
        k = int(np.argmin(fits))
        raise RewardError(name, f"returned {scores[k]}; expected a finite number", samples[k])
    return scores


def _reward_error(score: Score, samples: Sequence[Sample], error: Exception) -> RewardError:
    batch = f" (in a batch of {len(samples)}; this is the first)" if len(samples) > 1 else ""
    problem = f"raised {type(error).__name__}: {error}{batch}"
    return RewardError(type(score).__name__, problem, samples[0])
