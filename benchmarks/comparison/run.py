"""One run: train with one reward, then let all rewards of the task judge what it writes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import Logger

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.checkpointing import Checkpoint, Checkpoints, load_checkpoint
from agents.checkpointing.algorithm import Stateful
from agents.config import RunConfig
from agents.episodes import Episode
from agents.evaluation import evaluate
from agents.run_lock import run_lock
from agents.watching import EpisodeCollector
from comparison import rewards, setup, tasks
from comparison.clock import Clock
from comparison.curve import Curve, Point
from comparison.warm_start import model_for

ALGORITHMS = {"TokenPPO": TokenPPO}
TIMINGS = ("immediate", "delayed")

PATIENCE = 20.0
"""Seconds in which a worker that was lost gives up its run: Ray may know of its end before the
system does, or not reach its machine."""


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


def train(
    run: Run, checkpoints: Path, device: str = "cpu", every: float = 10.0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Carry out a run, or go on with it where it was cut: what comes out is the same.

    Args:
        run: What it is told.
        checkpoints: A directory in which it has one of its own until it is done.
        device: Where it trains.
        every: Seconds between two checkpoints, at least.

    Returns:
        What came out of it, as a row of the table of runs, and the points of its curve.

    Raises:
        BlockingIOError: If another process carries out this run, and does not end soon.
    """
    task = run.task
    spec = {run.reward: {**rewards.spec(run.reward), "weight": run.weight}}
    env_kwargs = {**setup.env_kwargs(task), "reward": spec, "timing": run.timing}
    config = RunConfig(gae_lambda=run.gae_lambda, seed=run.seed, device=device)
    own = checkpoints / _directory(run, config)
    with run_lock(own, PATIENCE):
        env = make_sb3_vec_env("TextGen-v0", config.n_envs, seed=run.seed, env_kwargs=env_kwargs)
        kind = ALGORITHMS[run.algorithm]
        with model_for(task) as model:
            kwargs = replace(config, model=model).algorithm_kwargs()
            learner = kind(TransformerPolicy, env, **kwargs)
        curve, seconds = _learn(learner, run, Checkpoints(own, keep=1), every)
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
            "kl": curve[-1].kl,
            **describe(texts),
            **{f"before: {name}": mean for name, mean in base_scores(run).items()},
            **{f"after: {name}": mean for name, mean in judged(texts).items()},
        }
        shutil.rmtree(own)
    return row, [asdict(point) for point in curve]


def _learn(
    learner: TokenPPO, run: Run, checkpoints: Checkpoints, every: float
) -> tuple[list[Point], float]:
    """Train to the end, from the last checkpoint on if there is one.

    Returns:
        The curve, and the seconds of processor time.
    """
    clock = Clock()
    collector = EpisodeCollector()
    curve = Curve(run.reward, collector, clock)
    parts = {"collector": collector, "curve": curve}
    learner.set_logger(Logger(None, []))  # which gets back what it had to write
    if checkpoints.latest is not None:
        load_checkpoint(learner, checkpoints.latest, parts)
    saving = _Checkpoint(checkpoints, every, parts, clock)
    clock.go_on()
    learner.learn(
        run.total_timesteps - learner.num_timesteps,
        callback=[collector, saving, curve],
        reset_num_timesteps=learner._last_obs is None,
    )
    clock.stop()
    return curve.points, clock.processor


def _directory(run: Run, config: RunConfig) -> str:
    """The name of a run's checkpoints, which no run goes on with that was told something else."""
    told = {name: config.of_algorithm(name) for name in sorted(config.algorithm.settings)}
    all_of_it = repr((run, rewards.spec(run.reward), asdict(config), told))
    digest = hashlib.sha256(all_of_it.encode()).hexdigest()[:12]
    return f"{run.reward.replace(' ', '_')}-{run.timing}-{run.seed}-{digest}"


class _Checkpoint(Checkpoint):
    """Saves while the clock stands still: runs are compared by the seconds of their training."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: float,
        parts: Mapping[str, Stateful],
        clock: Clock,
    ) -> None:
        super().__init__(checkpoints, every, parts)
        self._clock = clock

    def save(self) -> Path:
        """See `Checkpoint`."""
        with self._clock.stopped():
            return super().save()


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
    with model_for(task) as model:
        return setup.new_policy(task, model)


def base_scores(run: Run) -> dict[str, float]:
    """The judges' means for what the model wrote before training, on the same prompts."""
    return _base_scores(run.task, run.judges, run.seed)


@cache
def _base_scores(task: str, judges: tuple[str, ...], seed: int) -> dict[str, float]:
    return judged(write(base_policy(task), task, judges, seed))
