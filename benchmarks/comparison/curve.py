"""The learning curve of a run, a point a rollout; a run that was cut goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.watching import EpisodeCollector
from comparison.clock import Clock


@dataclass(frozen=True)
class Point:
    """The texts that ended in one rollout, and what it took to get there.

    Attributes:
        tokens: Tokens that the policy had learned from when it wrote them. At 0 it is the base
            model, but short texts are too many among those that ended in the first rollout: long
            ones were still being written. Later rollouts end what others began.
        seconds: Of training, up to the end of the rollout: processor time of the one thread, which
            other programs disturb less than the clock on the wall. Of a run that was cut, they are
            those up to the checkpoint and those from there on.
        score: Their mean score, without the reward's weight.
        kl: What they are from the base model, in nats a text.
        length: Their mean length in tokens.
    """

    tokens: int
    seconds: float
    score: float
    kl: float
    length: float


class Curve(BaseCallback):
    """Takes a point of the curve where a rollout ends.

    Args:
        reward: The name of the reward.
        collector: Has the episodes, and stands before this in the list of callbacks.
        clock: Counts the seconds of training.

    Attributes:
        points: One a rollout.
    """

    def __init__(self, reward: str, collector: EpisodeCollector, clock: Clock) -> None:
        super().__init__()
        self.points: list[Point] = []
        self._reward = reward
        self._collector = collector
        self._clock = clock

    def state(self) -> dict[str, Any]:
        """The points, and the seconds up to the last stop of the clock, for a checkpoint."""
        points = [asdict(point) for point in self.points]
        return {"points": points, "seconds": self._clock.processor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self.points = [Point(**point) for point in state["points"]]
        self._clock.processor = state["seconds"]

    def _on_rollout_start(self) -> None:
        self._learned_from = self.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        with self._clock.stopped():
            texts = self._collector.episodes
            point = Point(
                tokens=self._learned_from,
                seconds=self._clock.processor,
                score=float(np.mean([text.scores[self._reward] for text in texts])),
                kl=float(self.logger.name_to_value["objective/kl"]),
                length=float(np.mean([len(text.token_ids) for text in texts])),
            )
            self.points.append(point)
