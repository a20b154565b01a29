"""One run of ours: the algorithm as `textgym train` makes it, and looks at it on its way."""

from __future__ import annotations

from typing import Any

from comparison.clock import Clock
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents.config import RunConfig
from agents.vec_env import make_sb3_vec_env
from learning.judge import Judge
from learning.trial import Point, Trial


def learner(config: RunConfig) -> BaseAlgorithm:
    """The algorithm of a config, with its environment."""
    env = make_sb3_vec_env(
        "TextGen-v0", config.n_envs, seed=config.seed, env_kwargs=config.env_kwargs()
    )
    named = config.algorithm
    return named.kind(named.policy, env, **config.algorithm_kwargs())


def train(trial: Trial) -> list[Point]:
    """Carry out a run, and return the points of its learning curve."""
    algorithm = learner(trial.config)
    policy: Any = algorithm.policy
    judge = Judge(trial, policy)
    looks = _Looks(judge, trial)
    algorithm.learn(trial.budget, callback=looks)
    looks.look()
    algorithm.get_env().close()  # type: ignore[union-attr]
    judge.close()
    return looks.points


class _Looks(BaseCallback):
    """Judges the policy before training, and so many times between an update and a rollout.

    The last look is to be taken when all is over.
    """

    def __init__(self, judge: Judge, trial: Trial) -> None:
        super().__init__()
        self.points: list[Point] = []
        self._judge = judge
        self._every = trial.budget / trial.points
        self._scores: list[float] = []

    def look(self) -> None:
        """Judge the policy as it is."""
        self._clock.stop()
        policy: Any = self.model.policy
        point = self._judge.point(policy, self.num_timesteps, self._clock, self._scores)
        self.points.append(point)
        self._scores = []
        self._clock.go_on()

    def _on_training_start(self) -> None:
        self._clock = Clock()

    def _on_step(self) -> bool:
        infos = (self.locals["infos"][row] for row in self.locals["dones"].nonzero()[0])
        self._scores += [info["episode"]["r"] for info in infos]
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.points) * self._every:
            self.look()
