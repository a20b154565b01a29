"""One run: train with one reward, then let all rewards of the task judge what it writes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.config import RunConfig
from agents.episodes import Episode
from agents.evaluation import evaluate
from agents.watching import EpisodeCollector
from comparison import rewards, setup, tasks
from comparison.warm_start import model_for

ALGORITHMS = {"TokenPPO": TokenPPO}
TIMINGS = ("immediate", "delayed")


@dataclass(frozen=True)
class Run:
    """What one run is told.

    Attributes:
        reward: Its name in the table of rewards.
        timing: "immediate" or "delayed".
        seed: Of prompts and sampling, in training and on the held-out prompts.
        weight: Of the reward.
        gae_lambda: How far ahead a reward is credited.
        total_timesteps: Tokens of training.
        judges: The rewards that judge the held-out texts.
        algorithm: What trains.
    """

    reward: str
    timing: str
    seed: int
    weight: float
    gae_lambda: float
    total_timesteps: int
    judges: tuple[str, ...]
    algorithm: str = "TokenPPO"

    @property
    def task(self) -> str:
        """The task's name."""
        return rewards.REWARDS[self.reward].task

    def __str__(self) -> str:
        return f"{self.reward}, {self.timing}, lambda {self.gae_lambda:g}, seed {self.seed}"


@dataclass(frozen=True)
class Point:
    """The texts that ended in one rollout, and what it took to get there.

    Attributes:
        tokens: Tokens that the policy had learned from when it wrote them. At 0 it is the base
            model, but short texts are too many among those that ended in the first rollout: long
            ones were still being written. Later rollouts end what others began.
        seconds: Of training, up to the end of the rollout: processor time of the one thread, which
            other programs disturb less than the clock on the wall.
        score: Their mean score, without the reward's weight.
        kl: What they are from the base model, in nats a text.
        length: Their mean length in tokens.
    """

    tokens: int
    seconds: float
    score: float
    kl: float
    length: float


def train(run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Carry out a run.

    Returns:
        What came out of it, as a row of the table of runs, and the points of its curve.
    """
    task = run.task
    spec = {run.reward: {**rewards.spec(run.reward), "weight": run.weight}}
    env_kwargs = {**setup.env_kwargs(task), "reward": spec, "timing": run.timing}
    config = RunConfig(
        model=model_for(task), gae_lambda=run.gae_lambda, seed=run.seed, device="cpu"
    )
    env = make_sb3_vec_env("TextGen-v0", config.n_envs, seed=run.seed, env_kwargs=env_kwargs)
    kind = ALGORITHMS[run.algorithm]
    learner = kind(TransformerPolicy, env, **config.algorithm_kwargs())
    collector = EpisodeCollector()
    curve = _Curve(run.reward, collector)
    began = time.process_time()
    learner.learn(run.total_timesteps, callback=[collector, curve])
    seconds = time.process_time() - began
    env.close()
    # The updates after the last rollout are on no curve, but in these texts.
    texts = write(learner.policy, task, run.judges, run.seed)
    row = {
        "task": task,
        "reward": run.reward,
        "timing": run.timing,
        "algorithm": run.algorithm,
        "seed": run.seed,
        "total_timesteps": run.total_timesteps,
        "gae_lambda": run.gae_lambda,
        "weight": run.weight,
        "seconds": seconds,
        "kl": curve.points[-1].kl,
        **describe(texts),
        **{f"before: {name}": mean for name, mean in base_scores(run).items()},
        **{f"after: {name}": mean for name, mean in judged(texts).items()},
    }
    return row, [asdict(point) for point in curve.points]


def write(
    policy: TransformerPolicy,
    task: str,
    judges: Iterable[str],
    seed: int,
    *,
    split: str = "test",
    count: int = tasks.HELD_OUT_TEXTS,
) -> list[Episode]:
    """Texts on the prompts of a split, each prompt as often as it takes, judged by some rewards.

    What a reward pays has no influence on what is written, so that one set of texts is judged by
    all, each whole text once.
    """
    prompts = len(tasks.make(task).split(split))
    options = [{"prompt_index": index % prompts} for index in range(count)]
    reward = {name: rewards.spec(name) for name in judges}
    env_kwargs = {**setup.env_kwargs(task), "split": split, "reward": reward, "timing": "delayed"}
    return evaluate(policy, env_kwargs, options, seed=seed)


def judged(texts: Sequence[Episode]) -> dict[str, float]:
    """The mean score that each judge gave."""
    return {name: float(np.mean([t.scores[name] for t in texts])) for name in texts[0].scores}


def describe(texts: Sequence[Episode]) -> dict[str, float]:
    """How diverse the texts are, and how long.

    `distinct_2` is the share of the pairs of neighbouring words that are different, among all
    pairs of all texts (Li et al. 2016, https://arxiv.org/abs/1510.03055); 0 if there is no pair.
    """
    words = [text.text.lower().split() for text in texts]
    pairs = [pair for text in words for pair in pairwise(text)]
    length = float(np.mean([len(text.token_ids) for text in texts]))
    return {"distinct_2": len(set(pairs)) / max(len(pairs), 1), "length": length}


def base_policy(task: str) -> TransformerPolicy:
    """The model with which training on a task begins."""
    return setup.new_policy(task, model_for(task))


def base_scores(run: Run) -> dict[str, float]:
    """The judges' means for what the model wrote before training, on the same prompts."""
    return _base_scores(run.task, run.judges, run.seed)


@cache
def _base_scores(task: str, judges: tuple[str, ...], seed: int) -> dict[str, float]:
    return judged(write(base_policy(task), task, judges, seed))


class _Curve(BaseCallback):
    """Takes a point of the curve where a rollout ends.

    Args:
        reward: The name of the reward.
        collector: Has the episodes.
    """

    def __init__(self, reward: str, collector: EpisodeCollector) -> None:
        super().__init__()
        self.points: list[Point] = []
        self._reward = reward
        self._collector = collector

    def _on_training_start(self) -> None:
        self._began = time.process_time()

    def _on_rollout_start(self) -> None:
        self._learned_from = self.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        texts = self._collector.episodes
        point = Point(
            tokens=self._learned_from,
            seconds=time.process_time() - self._began,
            score=float(np.mean([text.scores[self._reward] for text in texts])),
            kl=float(self.logger.name_to_value["objective/kl"]),
            length=float(np.mean([len(text.token_ids) for text in texts])),
        )
        self.points.append(point)
