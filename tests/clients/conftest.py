"""What tests with real clients share: a small environment, and tiny algorithms in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecMonitor

import textgym
from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env

gym.register_envs(textgym)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose much where another job has the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def kwargs(tiny_tokenizer_dir: str) -> dict[str, Any]:
    """Episodes of 1 to 6 tokens: some end with the end-of-text token, others with the budget."""
    return {
        "task": {"name": "target_token", "targets": [*"abcdefghij"], "num_prompts": 20},
        "reward": ["target_token", {"name": "length", "weight": 0.5}],
        "tokenizer": tiny_tokenizer_dir,
        "max_new_tokens": 6,
    }


@pytest.fixture
def make_env(kwargs: dict[str, Any]) -> Callable[..., VecMonitor]:
    def make(n_envs: int = 4, **more: Any) -> VecMonitor:
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs={**kwargs, **more})

    return make


@pytest.fixture
def make(make_env: Callable[..., VecMonitor], make_llama: Any) -> Callable[..., BaseAlgorithm]:
    """Makes an algorithm of a tiny random model; always the same one."""

    def made(
        kind: Any = TokenPPO, policy: Any = TransformerPolicy, env: Any = None, **settings: Any
    ) -> Any:
        torch.manual_seed(0)
        defaults: dict[str, Any] = {"seed": 0}
        if "buffer_size" not in settings:
            defaults.update(n_steps=8, batch_size=32)
        if not isinstance(policy, str):
            defaults["policy_kwargs"] = {"model": make_llama(vocab_size=11)}
        given = {**defaults, **settings}
        # None leaves a setting out, for algorithms that have no such.
        given = {key: value for key, value in given.items() if value is not None}
        return kind(policy, env or make_env(), **given)

    return made
