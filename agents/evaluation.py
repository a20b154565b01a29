"""Texts that a policy writes for given prompts, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.episodes import Episode, EpisodeRecorder, Outcome
from agents.language_policy import LanguagePolicy
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.vec_env import make_sb3_vec_env
from textgym.process import TextProcess


@dataclass(frozen=True)
class Written:
    """An episode, and what its policy had before it.

    Attributes:
        episode: The episode.
        contexts: Where its tokens do not go on from the ones before them, the index of the first
            of them and the token ids that stood before it, int32 (c,): the prompt before token 0,
            and the whole dialogue so far where an environment answered.
        components: What each reward paid for each token, weight included, by name.
    """

    episode: Episode
    contexts: list[tuple[int, NDArray[np.int32]]]
    components: Mapping[str, list[float]] = field(default_factory=dict)


def evaluate(
    policy: LanguagePolicy,
    env_kwargs: Mapping[str, Any],
    prompts: Sequence[Mapping[str, Any]],
    *,
    rows: int | None = None,
    seed: int = 0,
    deterministic: bool = False,
) -> list[Episode]:
    """Let a policy continue some prompts.

    Sampling has a random stream of its own: the same policy and seed give the same texts, and
    the training that goes on afterwards is what it would have been.

    Args:
        policy: The policy.
        env_kwargs: Arguments of `TextGen-v0`.
        prompts: The options of `TextGenEnv.reset` for each, such as `{"prompt_index": 3}`.
        rows: How many are continued at a time; None for all at once.
        seed: Seed of the sampling.
        deterministic: Take the likeliest token instead of sampling.

    Returns:
        One episode a prompt, in the order of the prompts.
    """
    env = make_sb3_vec_env("TextGen-v0", rows or len(prompts), env_kwargs=env_kwargs)
    written = write(policy, env, prompts, seed=seed, deterministic=deterministic)
    env.close()
    return episodes(written)


def write(
    policy: LanguagePolicy,
    env: VecEnv,
    prompts: Sequence[Mapping[str, Any]],
    *,
    seed: int = 0,
    deterministic: bool = False,
) -> list[Written]:
    """As `evaluate`, in an environment that there is, as many prompts at a time as it has rows.

    Each portion is paid by the reward as it was at the start, whatever it learns of texts.

    Args:
        policy: The policy.
        env: Of `make_sb3_vec_env`.
        prompts: The options of a reset for each.
        seed: Seed of the sampling; the environment is seeded with seed + i for prompt i.
        deterministic: Take the likeliest token instead of sampling.

    Returns:
        One text a prompt, in the order of the prompts.
    """
    reward_state = env.env_method("reward_state", indices=[0])[0]
    devices = [policy.device] if policy.device.type == "cuda" else []
    written: list[Written] = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for begin in range(0, len(prompts), env.num_envs):
            if reward_state:
                env.env_method("load_reward_state", reward_state, indices=[0])
            env.seed(seed + begin)
            portion = prompts[begin : begin + env.num_envs]
            written += _write_portion(policy, env, portion, deterministic)
    return written


def _write_portion(
    policy: LanguagePolicy,
    env: VecEnv,
    prompts: Sequence[Mapping[str, Any]],
    deterministic: bool,
) -> list[Written]:
    """One text a prompt, at most as many as the environment has rows."""
    rows = np.arange(env.num_envs)
    env.set_options([dict(prompts[row]) if row < len(prompts) else {} for row in rows.tolist()])
    recorder = EpisodeRecorder(env.num_envs)
    observations = env.reset()
    assert isinstance(observations, dict)
    contexts = [[(0, _context(observations, row))] for row in range(len(prompts))]
    process: TextProcess = env.get_attr("process", indices=[0])[0]
    components: list[dict[str, list[float]]] = [{} for _ in prompts]
    episodes: dict[int, Episode] = {}
    rollout = Rollout(Sampler(policy, env.num_envs), env, observations, deterministic=deterministic)
    rollout.leave_out(rows >= len(prompts))
    is_over = np.zeros(env.num_envs, np.bool_)
    is_over[len(prompts) :] = True
    steps = 0
    while len(episodes) < len(prompts):
        while rollout.writes_on and not is_over.all():
            dones = rollout.write()
            is_over |= dones
            rollout.leave_out(dones)
        step = rollout.settle()
        steps += 1
        # SB3's infos tell of the ends of episodes alone.
        for name, amounts in process.reward.components.items():
            for row, amount in zip(step.rows.tolist(), amounts.tolist(), strict=True):
                components[row].setdefault(name, []).append(amount)
        # What an environment begins next in rows that ended is not wanted.
        episodes.update(
            recorder.add(step.actions, step.rewards, step.dones, step.infos, rows=step.rows)
        )
        for row in step.begun.tolist():
            if row not in episodes:
                contexts[row].append((steps, _context(step.new_observations, row)))
    return [Written(episodes[row], contexts[row], components[row]) for row in range(len(prompts))]


def _context(observations: Mapping[str, NDArray[Any]], row: int) -> NDArray[np.int32]:
    length = int(observations["attention_mask"][row].sum())
    context: NDArray[np.int32] = observations["input_ids"][row, :length].astype(np.int32)
    return context


def episodes(written: Sequence[Written]) -> list[Episode]:
    """Texts without what their policies had before them."""
    return [each.episode for each in written]


def mean_score(episodes: Sequence[Episode | Outcome]) -> float:
    """The mean of the episodes' scores."""
    return float(np.mean([episode.score for episode in episodes]))
