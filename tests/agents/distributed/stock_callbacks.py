"""Trains in two processes with callbacks of Stable-Baselines3 that save. For its test.

A program of its own: it imports everything once, and all processes are forks of it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from processes_of_test import begin, end, fork
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from agents import Reinforce, TransformerPolicy, make_sb3_vec_env
from agents.distributed.processes import join


def make_env(model: str) -> VecEnv:
    env_kwargs = {"tokenizer": model, "max_new_tokens": 8, "stop": list("abcdefgh")}
    return make_sb3_vec_env(
        "TextGen-v0", n_envs=4, env_kwargs={**env_kwargs, "reward": {"name": "length", "target": 5}}
    )


def make(model: str, **settings: Any) -> Reinforce:
    """An algorithm whose texts end by themselves: no process writes as many tokens as another."""
    policy_kwargs = {"model": model}
    settings = {"learning_rate": 1e-2, "seed": 0, "device": "cpu", **settings}
    return Reinforce(TransformerPolicy, make_env(model), policy_kwargs=policy_kwargs, **settings)


def together(model: str, directory: Path, index: int) -> None:
    """Train, save and load; each process writes down what it saw."""
    torch.set_num_threads(1)
    best, every = directory / "best", directory / "every"
    evaluates = EvalCallback(
        make_env(model),
        best_model_save_path=str(best),
        log_path=str(best),
        eval_freq=3,
        n_eval_episodes=2,
        deterministic=False,
        verbose=0,
    )
    algorithm = make(model).learn(300, callback=[evaluates, CheckpointCallback(5, str(every))])
    algorithm.save(directory / "last")
    loaded = Reinforce.load(directory / "last", env=make_env(model))
    told = {
        "evaluations": len(evaluates.evaluations_timesteps),
        "tokens": [algorithm.num_timesteps, loaded.num_timesteps],
        "same": all(
            torch.equal(one, other)
            for one, other in zip(
                algorithm.policy.parameters(), loaded.policy.parameters(), strict=True
            )
        ),
    }
    (directory / f"{index}.json").write_text(json.dumps(told))


def sharded(model: str, directory: Path, index: int) -> None:
    """Save where others do not: rollouts have as many steps as the longest text of a process."""
    torch.set_num_threads(1)
    algorithm = make(model, shard=True)
    try:
        frequency = 1_000 if index else 5
        algorithm.learn(100, callback=CheckpointCallback(frequency, str(directory / "sharded")))
    except (RuntimeError, ConnectionError) as error:
        (directory / f"sharded-{index}").write_text(f"{type(error).__name__}: {error}")
        join().wait()


def main() -> None:
    model, directory = sys.argv[1], Path(sys.argv[2])
    fork(2, lambda index: together(model, directory, index))
    end(begin(2, lambda index: sharded(model, directory, index)))


if __name__ == "__main__":
    main()
