"""Texts that a policy writes for given prompts, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from agents.episodes import Episode, EpisodeRecorder
from agents.policy import TransformerPolicy
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.vec_env import make_sb3_vec_env


def evaluate(
    policy: TransformerPolicy,
    env_kwargs: Mapping[str, Any],
    prompts: Sequence[Mapping[str, Any]],
    *,
    seed: int = 0,
    deterministic: bool = False,
) -> list[Episode]:
    """Let a policy continue some prompts, all at once.

    Sampling has a random stream of its own: the same policy and seed give the same texts, and
    the training that goes on afterwards is what it would have been.

    Args:
        policy: The policy.
        env_kwargs: Arguments of `TextGen-v0`.
        prompts: The options of `TextGenEnv.reset` for each, such as `{"prompt_index": 3}`.
        seed: Seed of the sampling.
        deterministic: Take the likeliest token instead of sampling.

    Returns:
        One episode a prompt, in the order of the prompts.
    """
    num_prompts = len(prompts)
    env = make_sb3_vec_env("TextGen-v0", num_prompts, seed=seed, env_kwargs=env_kwargs)
    env.set_options([dict(options) for options in prompts])
    recorder = EpisodeRecorder(num_prompts)
    episodes: dict[int, Episode] = {}
    observations = env.reset()
    assert isinstance(observations, dict)
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        sampler = Sampler(policy, num_prompts)
        rollout = Rollout(sampler, env, observations, deterministic=deterministic)
        while len(episodes) < num_prompts:
            step = rollout.step()
            ended = recorder.add(step.actions, step.rewards, step.dones, step.infos)
            # What the environment begins next in these rows is not wanted.
            episodes = {**ended, **episodes}
            rollout.leave_out(step.dones)
    env.close()
    return [episodes[row] for row in range(num_prompts)]


def mean_score(episodes: Sequence[Episode]) -> float:
    """The mean of the episodes' scores."""
    return float(np.mean([episode.score for episode in episodes]))
