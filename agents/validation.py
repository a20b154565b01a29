"""Looks at validation prompts while a policy learns, and keeps the best model by them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.distributed.processes import processes_of
from agents.episodes import Episode
from agents.evaluation import mean_score
from textgym.bandits import Uniform
from textgym.files import durable_write
from textgym.process import TextProcess

VALIDATION = "validation/mean_score"
"""The column of `progress.csv` with the score of the validation prompts."""

VALIDATION_TIMESTEPS = "validation/timesteps"
"""The column with the tokens that the model had learned from then."""


def best_template(process: TextProcess) -> tuple[str, ...] | None:
    """The template that pays best so far, if a bandit knows enough of each to tell."""
    bandit = process.prompts.selection
    if bandit is None or isinstance(bandit, Uniform):
        return None
    winner = bandit.winner()
    return None if winner is None else (process.prompts.templates[winner.arm].text,)


@dataclass(frozen=True)
class Best:
    """The best model so far.

    Attributes:
        timesteps: Tokens that it had learned from.
        score: Its mean score of the validation prompts.
        templates: The template that paid best then, if a bandit was finding that out.
    """

    timesteps: int
    score: float
    templates: tuple[str, ...] | None = None

    def save(self, path: Path) -> None:
        """Write it to a file."""
        durable_write(path, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> Best:
        """Read it from a file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        templates = values.pop("templates", None)
        return cls(**values, templates=None if templates is None else tuple(templates))


class Validation(BaseCallback):
    """Judges the policy every so often, after an update, and saves it when it is the best so far.

    Logged are `validation/mean_score`, `validation/success_rate` where texts can succeed, and
    `validation/best_score`.

    Args:
        judge: Lets the policy write for the validation prompts, put by given templates.
        best_template: Knows the template that pays best so far, if there is one.
        save: Saves the policy as the best one.
        record: A file that keeps the best score, for a run that goes on.
        every: Tokens between two looks.

    Attributes:
        best: The best so far; None before the first look.
    """

    def __init__(
        self,
        judge: Callable[[tuple[str, ...] | None], Sequence[Episode]],
        best_template: Callable[[], tuple[str, ...] | None],
        save: Callable[[], None],
        record: Path,
        every: int,
    ) -> None:
        super().__init__()
        self._judge = judge
        self._best_template = best_template
        self._save = save
        self._record = record
        self._every = every
        self.best: Best | None = None
        self._last = 0
        self._best_score = -math.inf

    def state(self) -> dict[str, Any]:
        """When it looked last, and the best that it saw, JSON-able."""
        return {"last": self._last, "best_score": self._best_score}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on as if it had looked then.

        The model that was kept may be of a look after that, of which the file tells. It stays
        until there is a better one.
        """
        self._last = state.get("last", 0)
        self._best_score = state.get("best_score", -math.inf)
        if self._record.is_file():
            self.best = Best.load(self._record)

    def _on_training_start(self) -> None:
        if self.num_timesteps == 0:
            self._last = 0
        elif self.best is None and self._record.is_file():  # goes on without a state
            self.best = Best.load(self._record)
            self._last = self.best.timesteps
            self._best_score = self.best.score
        # A file may be late elsewhere.
        self.best = processes_of(self.model).of_first("best so far", self.best)

    def _on_rollout_start(self) -> None:
        due = self.num_timesteps - self._last >= self._every
        if processes_of(self.model).of_first("looks at validation prompts", due):
            self._look()

    def _on_training_end(self) -> None:
        due = self.num_timesteps > self._last or self.best is None
        if processes_of(self.model).of_first("looks at validation prompts", due):
            self._look()
            self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
            self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return True

    def _look(self) -> None:
        templates = self._best_template()
        episodes = self._judge(templates)
        score = mean_score(episodes)
        processes = processes_of(self.model)
        is_best = self.best is None or score > self.best.score
        if processes.of_first("best by validation", is_best):
            best = Best(self.num_timesteps, score, templates)
            self._save()
            if processes.is_first:
                best.save(self._record)
            self.best = best
        self._last = self.num_timesteps
        # Written with what SB3 logs next, that is after another rollout.
        self.logger.record(VALIDATION, score)
        self.logger.record(VALIDATION_TIMESTEPS, self.num_timesteps, exclude="tensorboard")
        self._best_score = max(self._best_score, score)
        self.logger.record("validation/best_score", self._best_score)
        successes = [episode.success for episode in episodes if episode.success is not None]
        if successes:
            self.logger.record("validation/success_rate", float(np.mean(successes)))
