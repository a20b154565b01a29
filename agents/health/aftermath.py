"""What a run keeps when it diverged, and how a person goes on from there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from agents.checkpointing.algorithm import WEIGHTS
from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.config import RunConfig
from agents.language_policy import LanguagePolicy
from agents.run_directory import RunDirectory
from agents.validation import Best
from agents.weights import load_weights


def keep_what_is_good(
    run: RunDirectory,
    config: RunConfig,
    policy: LanguagePolicy,
    best: Best | None,
    save_model: Callable[[], None],
    *,
    by_reward: bool,
) -> str:
    """See to it that a run that diverged has a model from which another run can begin.

    That is the best by validation, which the run has already, or else that of the last checkpoint,
    whose weights the policy gets for it.

    Args:
        run: Its directory.
        config: Its settings.
        policy: What was trained.
        best: The best by validation; None if there is none.
        save_model: Saves the policy as the model of the run.
        by_reward: Whether the environment is to blame, and nothing that was learned.

    Returns:
        How to go on, in words.
    """
    good = [path for path in Checkpoints(run.checkpoints).all if _is_finite(path / WEIGHTS)]
    if not good:
        return "there is no checkpoint yet: begin again with other settings."
    latest = good[-1]
    if best is None:
        load_weights(policy, latest / WEIGHTS)
        save_model()
    where = shlex.quote(str(run.path))
    last = f"the last good checkpoint is {latest}, after {tokens_of(latest):,} tokens."
    if by_reward:
        return f"{last} Once the reward is mended: textgym train --resume {where}"
    of = "that checkpoint's" if best is None else f"the best, after {best.timesteps:,} tokens"
    fresh = "" if config.backbone is None else " --backbone None"
    return (
        f"{last} To resume from it as it is would take the same steps again. "
        f"Train {run.model} on ({of}), in a new run with other settings:\n"
        f"         textgym train --config {shlex.quote(str(run.config))} --model {where}{fresh} "
        f"--learning-rate {_lower_rate(config, policy):g}"
    )


def _is_finite(weights: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in load_file(weights).values())


def _lower_rate(config: RunConfig, policy: LanguagePolicy) -> float:
    """A tenth of the learning rate, and no more than what is usual for the algorithm."""
    usual = replace(config, learning_rate=None).of_algorithm("learning_rate")
    return float(min(policy.optimizer.param_groups[0]["lr"] / 10, usual))
