"""A rollout of tokens, each stored once, and handed out as sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer

from agents.returns import gae
from agents.rollout import Step
from agents.scoring import SequenceBatch


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

    Arrays have SB3's names and shape, (n_steps, n_envs). Besides, there are `ref_log_probs`, of
    the reference model. A token takes 29 bytes; an observation of SB3's takes 9 for every token
    of the window.

    Attributes:
        segments: What was written in one piece, once the rollout is over.
    """

    ref_log_probs: NDArray[np.float32]

    def reset(self) -> None:
        """Empty the buffer."""
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros(shape, np.int32)
        self.episode_starts = np.zeros(shape, np.bool_)
        for name in ("rewards", "values", "log_probs", "ref_log_probs", "advantages", "returns"):
            setattr(self, name, np.zeros(shape, np.float32))
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
        self.actions[self.pos] = step.actions
        self.rewards[self.pos] = step.rewards + gamma * step.terminal_values
        self.episode_starts[self.pos] = episode_starts
        self.values[self.pos] = step.values
        self.log_probs[self.pos] = step.log_probs
        self.pos += 1
        self.full = self.pos == self.buffer_size
        if not self.full:
            self.begin(step.begun, step.new_observations)

    @property
    def segments(self) -> list[Segment]:
        """What was written in one piece, by row and step."""
        segments = []
        for row, begun in enumerate(self._begun):
            ends = [begin for begin, _ in begun[1:]] + [self.pos]
            for (begin, context), end in zip(begun, ends, strict=True):
                if begin < end:  # none was written yet where a callback stopped the rollout
                    segments.append(Segment(row, begin, end, context))
        return segments

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

    def mini_batches(self, batch_size: int | None) -> Iterator[list[Segment]]:
        """All segments, each once, in a random order.

        Args:
            batch_size: Tokens of a mini-batch. A segment is never torn apart, so that a mini-batch
                may have more or fewer; their number is what it would be. None for all in one.
        """
        segments = self.segments
        order = np.random.permutation(len(segments))
        steps = np.array([segments[index].steps for index in order])
        total = int(steps.sum())
        count = 1 if batch_size is None else max(round(total / batch_size), 1)
        # A segment belongs to the mini-batch in which its middle lies.
        middles = np.cumsum(steps) - steps / 2
        member = (middles * count / total).astype(np.intp)
        for index in range(count):
            chosen = order[member == index]
            if len(chosen):
                yield [segments[i] for i in chosen.tolist()]

    def sequence_batches(
        self, segments: Sequence[Segment], max_tokens: int
    ) -> Iterator[SequenceBatch]:
        """Segments as batches of sequences of about the same length.

        Args:
            segments: Which.
            max_tokens: Most tokens of a batch, padding among them; at least one sequence is in it.
                Padding is at most a 64th of it: more costs more than another batch does.
        """
        ordered = sorted(segments, key=lambda segment: segment.length, reverse=True)
        begin, padding = 0, 0
        for end, segment in enumerate(ordered):
            longest = ordered[begin].length
            padding += longest - segment.length
            if (end + 1 - begin) * longest > max_tokens or padding > max_tokens // 64:
                if end > begin:
                    yield self._batch(ordered[begin:end])
                begin, padding = end, 0
        yield self._batch(ordered[begin:])

    def _batch(self, segments: Sequence[Segment]) -> SequenceBatch:
        columns = segments[0].length
        ids = np.zeros((len(segments), columns), np.int64)
        predicted_at, places = [], []
        for index, segment in enumerate(segments):
            written = self.actions[segment.begin : segment.end, segment.row]
            context = len(segment.context)
            ids[index, :context] = segment.context
            ids[index, context : segment.length] = written[:-1]
            steps = np.arange(segment.steps)
            predicted_at.append(steps + index * columns + context - 1)
            places.append((steps + segment.begin) * self.n_envs + segment.row)
        where = np.concatenate(places)
        return SequenceBatch(
            self.to_torch(ids, copy=False),
            self.to_torch(np.concatenate(predicted_at), copy=False),
            self.to_torch(self.actions.reshape(-1)[where].astype(np.int64), copy=False),
            where,
        )

    def get(self, batch_size: int | None = None) -> Any:
        """Not of use: there are no observations. See `mini_batches`."""
        raise NotImplementedError(
            "a buffer of tokens hands out mini_batches() and sequence_batches(), and no "
            "observation for each step."
        )
