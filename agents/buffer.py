"""A rollout of tokens, each stored once, and handed out as sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from agents.returns import gae
from agents.rollout import Step
from agents.scoring import SequenceBatch
from agents.sequences import TokenSequence, sequence_batches

_ARRAYS = {
    "actions": np.int32,
    "episode_starts": np.bool_,
    "written": np.bool_,
    **dict.fromkeys(
        ("rewards", "values", "log_probs", "ref_log_probs", "advantages", "returns"), np.float32
    ),
}
"""What is kept of each token."""


@dataclass(frozen=True)
class Segment:
    """The tokens of one row that were written one after another, and what stood before them.

    Attributes:
        row: Index of the environment.
        begin: First step.
        end: Behind the last step.
        context: Token ids before the first, int32 (c,).
    """

    row: int
    begin: int
    end: int
    context: NDArray[np.int32]

    @property
    def length(self) -> int:
        """Number of tokens that a model reads to score it: the last one is only predicted."""
        return len(self.context) + self.end - self.begin - 1

    @property
    def steps(self) -> int:
        """Number of tokens that were written."""
        return self.end - self.begin


class TokenRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer for texts: prompts and tokens instead of an observation a step.

    Arrays have SB3's names and shape, (n_steps, n_envs); where rows write whole episodes there are
    as many steps as the longest row needs. A token takes 30 bytes; an observation of SB3's takes 9
    for every token of the window.

    Attributes:
        ref_log_probs: Log-probabilities under the reference model, (T, n).
        written: Whether there is a token: rows may be left out once they wrote enough, (T, n).
        segments: What was written in one piece, once the rollout is over.
    """

    ref_log_probs: NDArray[np.float32]
    written: NDArray[np.bool_]

    def reset(self) -> None:
        """Empty the buffer."""
        for name, dtype in _ARRAYS.items():
            setattr(self, name, np.zeros((self.buffer_size, self.n_envs), dtype))
        self._begun: list[list[tuple[int, NDArray[np.int32]]]] = [[] for _ in range(self.n_envs)]
        self.generator_ready = False
        self.pos, self.full = 0, False

    def begin(self, rows: NDArray[np.intp], observations: Any) -> None:
        """Note the contexts from which rows go on in the next step."""
        for row in rows.tolist():
            length = int(observations["attention_mask"][row].sum())
            context = observations["input_ids"][row, :length].astype(np.int32)
            self._begun[row].append((self.pos, context))

    def add_step(self, step: Step, episode_starts: NDArray[np.bool_], gamma: float) -> None:
        """Add a token of every row.

        Args:
            step: What happened.
            episode_starts: Whether the tokens are the first of their episodes, bool (n,).
            gamma: Discount of what would have come after a cut.
        """
        if self.pos == len(self.actions):
            for name in _ARRAYS:
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        self.actions[self.pos] = step.actions
        self.rewards[self.pos] = step.rewards + gamma * step.terminal_values
        self.episode_starts[self.pos] = episode_starts
        self.values[self.pos] = step.values
        self.log_probs[self.pos] = step.log_probs
        self.written[self.pos, step.rows] = True
        self.pos += 1
        self.begin(step.begun, step.new_observations)

    def trim(self) -> None:
        """Say that the rollout is over: arrays have as many steps as there were."""
        for name in _ARRAYS:
            setattr(self, name, getattr(self, name)[: self.pos])
        self.full = True

    @property
    def segments(self) -> list[Segment]:
        """What was written in one piece, by row and step."""
        segments = []
        for row, (begun, last) in enumerate(zip(self._begun, self.written.sum(0), strict=True)):
            ends = [begin for begin, _ in begun[1:]] + [int(last)]
            for (begin, context), end in zip(begun, ends, strict=True):
                if begin < end:  # none was written any more
                    segments.append(Segment(row, begin, end, context))
        return segments

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Of which episode each token is, int64 (T, n); -1 where there is none.

        They are counted in the order in which they began, in the same step by row. What was begun
        in an earlier rollout counts as begun now.
        """
        begins = self.episode_starts & self.written
        begins[0] = self.written[0]
        numbers = np.cumsum(begins).reshape(begins.shape) - 1
        of_row = np.maximum.accumulate(np.where(begins, numbers, -1))
        return np.where(self.written, of_row, -1)

    def compute_returns_and_advantage(  # type: ignore[override]
        self, last_values: NDArray[np.float32], dones: NDArray[np.bool_]
    ) -> None:
        """Fill `advantages` and `returns`; see `agents.returns.gae`."""
        self.advantages = gae(
            self.rewards,
            self.values,
            self.episode_starts,
            last_values,
            dones,
            self.gamma,
            self.gae_lambda,
        )
        self.returns = self.advantages + self.values

    def mini_batches(self, count: int) -> Iterator[list[Segment]]:
        """All segments, each once, in a random order.

        Args:
            count: How many mini-batches, of about as many tokens each. A segment is never torn
                apart, so that one may have more or fewer, or none.
        """
        segments = self.segments
        order = np.random.permutation(len(segments))
        steps = np.array([segments[index].steps for index in order])
        total = int(steps.sum())
        # A segment belongs to the mini-batch in which its middle lies.
        middles = np.cumsum(steps) - steps / 2
        member = (middles * count / total).astype(np.intp)
        for index in range(count):
            yield [segments[i] for i in order[member == index].tolist()]

    def sequence_batches(
        self, segments: Sequence[Segment], max_tokens: int
    ) -> Iterator[SequenceBatch]:
        """Segments as batches of sequences of about the same length.

        Args:
            segments: Which.
            max_tokens: Most tokens of a batch, padding among them; at least one sequence is in it.
                Padding is at most a 64th of it: more costs more than another batch does.
        """
        sequences = map(self._sequence, segments)
        return sequence_batches(sequences, max_tokens, self.device)

    def places(self, segments: Sequence[Segment]) -> NDArray[np.int64]:
        """Where the tokens of segments stand, int64 (m,): step * n + row."""
        steps = [np.arange(s.begin, s.end) * self.n_envs + s.row for s in segments]
        return np.concatenate(steps) if steps else np.empty(0, np.int64)

    def put(self, places: NDArray[np.int64], **columns: Tensor) -> None:
        """Note numbers of tokens, float32 (m,) by the name of their array, at `places`, (m,)."""
        for name, numbers in columns.items():
            getattr(self, name).reshape(-1)[places] = numbers.cpu().numpy()

    def _sequence(self, segment: Segment) -> TokenSequence:
        tokens = self.actions[segment.begin : segment.end, segment.row]
        return TokenSequence(segment.context, tokens, self.places([segment]))

    def get(self, batch_size: int | None = None) -> Any:
        """Not of use: there are no observations. See `mini_batches`."""
        raise NotImplementedError(
            "a buffer of tokens hands out mini_batches() and sequence_batches(), and no "
            "observation for each step."
        )
