"""What is the same in every run: the settings, the environment and the policy."""

from __future__ import annotations

from typing import Any

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.config import RunConfig
from comparison import tasks


def env_kwargs(task: str) -> dict[str, Any]:
    """Arguments of the environment, reward and timing aside."""
    config = RunConfig(task=tasks.make(task), max_new_tokens=tasks.BUDGETS[task])
    return config.env_kwargs()


def new_policy(task: str, model: str) -> TransformerPolicy:
    """A policy of a model, with room for the texts of a task."""
    config = RunConfig(model=model, device="cpu")
    env = make_sb3_vec_env("TextGen-v0", 1, env_kwargs={**env_kwargs(task), "reward": "length"})
    policy = TokenPPO(TransformerPolicy, env, **config.algorithm_kwargs()).policy
    env.close()
    return policy
