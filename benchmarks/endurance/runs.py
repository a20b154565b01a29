"""The long runs, each for a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from rich.console import Console
from speed.workload import EOS_ID, PAD_ID, TableReward, Workload
from transformers import LlamaConfig, LlamaForCausalLM

from agents.config import RunConfig
from agents.train import train
from agents.vec_env import make_sb3_vec_env
from endurance.footprint import Footprint, Watch
from textgym.tasks import Example, Task

ROWS = 16
VOCABULARY = 512
TASK = {"name": "target_token", "targets": [*"abcdefgh"], "num_prompts": 200}


@dataclass(frozen=True)
class Course:
    """A run and how it went.

    Attributes:
        name: Of the run.
        what: What there is so many of: steps or updates.
        footprints: What the process held, from the beginning to the end.
        grown: The kinds of objects of which there are more at the end than in the middle.
        written: What a training run left: bytes by name of the file or directory.
    """

    name: str
    what: str
    footprints: list[Footprint]
    grown: list[tuple[str, int]]
    written: dict[str, int]


def single_environment(total: int, samples: int) -> Course:
    """Steps of one environment, episodes of 32 tokens and shorter."""
    env = gym.make("TextGen-v0", **_kwargs(), disable_env_checker=True)
    actions = np.random.default_rng(0).integers(0, VOCABULARY, 10_007).tolist()
    watch, over = Watch(total, samples), True
    with closing(env):
        for step in range(1, total + 1):
            if over:
                env.reset(seed=0 if step == 1 else None)
            _, _, terminated, truncated, _ = env.step(actions[step % len(actions)])
            over = terminated or truncated
            watch.count(step)
    return Course("single environment", "steps", watch.footprints, watch.grown(), {})


def vector_environment(total: int, samples: int) -> Course:
    """Batch steps of the vector environment, through the bridge to Stable-Baselines3."""
    env = make_sb3_vec_env("TextGen-v0", ROWS, seed=0, env_kwargs=_kwargs())
    actions = np.random.default_rng(0).integers(0, VOCABULARY, (10_007, ROWS))
    watch = Watch(total, samples)
    with closing(env):
        env.reset()
        for step in range(1, total + 1):
            env.step(actions[step % len(actions)])
            watch.count(step)
    name = f"vector environment, {ROWS} rows, SB3 bridge"
    return Course(name, "batch steps", watch.footprints, watch.grown(), {})


def next_step_environment(total: int, samples: int) -> Course:
    """Batch steps in Gymnasium's own mode, with resets of all rows on the way."""
    env = gym.make_vec("TextGen-v0", ROWS, autoreset_mode=AutoresetMode.NEXT_STEP, **_kwargs())
    actions = np.random.default_rng(0).integers(0, VOCABULARY, (10_007, ROWS))
    watch = Watch(total, samples)
    with closing(env):
        for step in range(1, total + 1):
            if step % 1000 == 1:
                env.reset(seed=step)
            env.step(actions[step % len(actions)])
            watch.count(step)
    name = f"vector environment, {ROWS} rows, resets with seeds"
    return Course(name, "batch steps", watch.footprints, watch.grown(), {})


def token_ppo(total: int, samples: int) -> Course:
    """Updates of a whole training run: logs, samples, validation, checkpoints."""
    return _training("ppo", total, samples, {"kl_coef": 0.05})


def stock_ppo(total: int, samples: int) -> Course:
    """The same with Stable-Baselines3's own PPO, whose every token reads its whole context."""
    return _training("sb3-ppo", total, samples, {})


def repeated_training(total: int, samples: int) -> Course:
    """Whole training runs one after another, as when settings are tuned."""
    watch = Watch(total, samples)
    for run in range(1, total + 1):
        token_ppo(3, 1)
        watch.count(run)
    return Course("trainings of 3 updates", "runs", watch.footprints, watch.grown(), {})


RUNS: dict[str, Callable[[int, int], Course]] = {
    "single": single_environment,
    "vector": vector_environment,
    "resets": next_step_environment,
    "ppo": token_ppo,
    "sb3-ppo": stock_ppo,
    "repeated": repeated_training,
}


def _training(algo: str, total: int, samples: int, settings: dict[str, Any]) -> Course:
    rollout = 8 * 4
    tokens = total * rollout
    with tempfile.TemporaryDirectory() as directory:
        config = RunConfig(
            output=Path(directory, "run"),
            model=_tiny_model(Path(directory, "model")),
            task=TASK,
            reward={"name": "speed.workload:TableReward", "vocabulary": VOCABULARY},
            algo=algo,  # type: ignore[arg-type]
            n_envs=8,
            n_steps=4,
            batch_size=rollout,
            n_epochs=1,
            max_new_tokens=6,
            total_timesteps=tokens,
            eval_every=max(tokens // 20, 1),
            eval_prompts=8,
            checkpoint_every=2.0,
            device="cpu",
            **settings,
        )
        kind: Any = config.algorithm.kind
        update, watch = kind.train, Watch(total, samples)

        def watched(algorithm: Any) -> None:
            update(algorithm)
            watch.count(algorithm.num_timesteps // rollout)

        # train() takes no callbacks, and its updates are what is counted.
        with patch.object(kind, "train", watched), open(os.devnull, "w") as nowhere:
            run = train(config, Console(file=nowhere))
        written = _sizes(run)
    name = f"training, algo {algo}"
    return Course(name, "updates", watch.footprints, watch.grown(), written)


def _sizes(run: Path) -> dict[str, int]:
    """Bytes of what is in a directory, by name."""
    sizes: Counter[str] = Counter()
    for path in run.rglob("*"):
        name = path.relative_to(run).parts[0]
        if path.is_file():
            sizes["TensorBoard events" if name.startswith("events") else name] += (
                path.stat().st_size
            )
    return dict(sizes)


def _kwargs() -> dict[str, Any]:
    workload = Workload(ROWS, prompt=8, new=32, vocabulary=VOCABULARY)
    task = Task("letters", {"train": tuple(Example(prompt) for prompt in workload.prompts)})
    return {
        "task": task,
        "reward": TableReward(VOCABULARY),
        "tokenizer": workload.tokenizer,
        "max_new_tokens": 32,
    }


def _tiny_model(directory: Path) -> str:
    """A directory with a transformer of one narrow layer and a tokenizer of bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    Workload(ROWS, vocabulary=VOCABULARY).tokenizer.save_pretrained(directory)
    return str(directory)
