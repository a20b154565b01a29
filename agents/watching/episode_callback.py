"""Callbacks that look at whole texts, and what puts the texts together for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.distributed.processes import processes_of
from agents.episodes import Episode, EpisodeRecorder, Outcome


class EpisodeCollector(BaseCallback):
    """Puts the episodes of a rollout together, once for all callbacks that look at texts.

    Stands before them in the list of callbacks.

    Attributes:
        episodes: Those that ended in the current rollout, in this process.
        outcomes: Of those of all processes, once the rollout is over. Texts are not sent: from
            all to all they would be too much for many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[Episode] = []
        self.outcomes: list[Outcome] = []
        self._recorder: EpisodeRecorder | None = None

    def state(self) -> dict[str, Any]:
        """The texts that were not finished, JSON-able; empty before training."""
        return {} if self._recorder is None else self._recorder.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the texts of such a state, before `learn(reset_num_timesteps=False)`."""
        if state:
            self._recorder = EpisodeRecorder(len(state["tokens"]))
            self._recorder.load_state(state)

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """Forget the unfinished texts of rows, bool (n,), whose episodes begin anew."""
        if self._recorder is not None:
            self._recorder.forget(rows)

    def _on_training_start(self) -> None:
        # Where training goes on, so do the texts.
        if self._recorder is None or self.num_timesteps == 0:
            self._recorder = EpisodeRecorder(self.training_env.num_envs)
        elif isinstance(self.model, OnPolicyAlgorithm):  # others do not keep these
            assert self.model._last_episode_starts is not None
            self.forget(self.model._last_episode_starts)

    def _on_rollout_start(self) -> None:
        self.episodes, self.outcomes = [], []

    def _on_step(self) -> bool:
        assert self._recorder is not None
        step = (self.locals[key] for key in ("actions", "rewards", "dones", "infos"))
        rows = self.locals.get("rows")  # in which a token was written; SB3 knows of no others
        self.episodes += self._recorder.add(*step, rows=rows).values()
        return True

    def _on_rollout_end(self) -> None:
        own = [episode.outcome for episode in self.episodes]
        every = processes_of(self.model).gather("collects episodes", own)
        self.outcomes = [outcome for outcomes in every for outcome in outcomes]


class EpisodeCallback(BaseCallback):
    """A callback that finds the texts of a rollout in `self.episodes`, and their `outcomes`.

    Args:
        collector: Has the texts, and stands before this in the list of callbacks; None to put
            them together here.
    """

    def __init__(self, collector: EpisodeCollector | None = None) -> None:
        super().__init__()
        self._owns_collector = collector is None
        self._collector = EpisodeCollector() if collector is None else collector

    @property
    def episodes(self) -> list[Episode]:
        """The texts that ended in the current rollout, in this process."""
        return self._collector.episodes

    @property
    def outcomes(self) -> list[Outcome]:
        """What there is to count of those of all processes, once the rollout is over."""
        return self._collector.outcomes

    def init_callback(self, model: BaseAlgorithm) -> None:
        """See SB3."""
        super().init_callback(model)
        if self._owns_collector:
            self._collector.init_callback(model)

    def on_training_start(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """See SB3."""
        if self._owns_collector:
            self._collector.on_training_start(locals_, globals_)
        super().on_training_start(locals_, globals_)

    def on_rollout_start(self) -> None:
        """See SB3."""
        if self._owns_collector:
            self._collector.on_rollout_start()
        super().on_rollout_start()

    def on_step(self) -> bool:
        """See SB3."""
        if self._owns_collector:
            self._collector.on_step()
        return super().on_step()

    def on_rollout_end(self) -> None:
        """See SB3."""
        if self._owns_collector:
            self._collector.on_rollout_end()
        super().on_rollout_end()

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """See SB3."""
        if self._owns_collector:
            self._collector.update_locals(locals_)

    def _on_step(self) -> bool:
        return True
