"""What a run keeps when it diverged, and how a person goes on from there."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from agents.checkpointing.algorithm import WEIGHTS
from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.config import RunConfig
from agents.language_policy import LanguagePolicy
from agents.run_directory import RunDirectory
from agents.validation import Best
from textgym.shell import program


def latest_good(run: RunDirectory) -> Path | None:
    """The newest checkpoint of a run whose weights are numbers; None if there is none."""
    good = [path for path in Checkpoints(run.checkpoints).all if _is_finite(path / WEIGHTS)]
    return good[-1] if good else None


def way_on(
    run: RunDirectory, config: RunConfig, policy: LanguagePolicy, best: Best | None, by_reward: bool
) -> str:
    """How to go on after a run that diverged, in words.

    Args:
        run: Its directory.
        config: Its settings.
        policy: What was trained.
        best: The best by validation, which is its model; None for that of the last checkpoint.
        by_reward: Whether the environment is to blame, and nothing that was learned.
    """
    latest = latest_good(run)
    if latest is None:
        return "there is no checkpoint yet: begin again with other settings."
    where = shlex.quote(str(run.path))
    last = f"the last good checkpoint is {latest}, after {tokens_of(latest):,} tokens."
    if by_reward:
        return f"{last} Once the reward is mended: {program()} train --resume {where}"
    of = "that checkpoint's" if best is None else f"the best, after {best.timesteps:,} tokens"
    fresh = "" if config.backbone is None else " --backbone None"
    return (
        f"{last} To resume from it as it is would take the same steps again. "
        f"Train {run.model} on ({of}), in a new run with other settings:\n"
        f"         {program()} train --config {shlex.quote(str(run.config))} --model {where}"
        f"{fresh} --learning-rate {_lower_rate(config, policy):g}"
    )


def _is_finite(weights: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in load_file(weights).values())


def _lower_rate(config: RunConfig, policy: LanguagePolicy) -> float:
    """A tenth of the learning rate, and no more than what is usual for the algorithm."""
    usual = replace(config, learning_rate=None).of_algorithm("learning_rate")
    return float(min(policy.optimizer.param_groups[0]["lr"] / 10, usual))
