"""Whether the settings of a run make sense, before anything is done."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from agents import schedules
from agents.algorithms.by_name import ALGORITHMS
from agents.algorithms.settings import MOST_SEED
from agents.recurrent.make import check_backbone
from agents.typed import check_types

if TYPE_CHECKING:
    from agents.config import RunConfig

SCHEDULES = {"learning_rate", "clip_range", "ent_coef", "temperature", "epsilon"}

_ABOVE_ZERO = (
    "total_timesteps",
    "max_new_tokens",
    "n_envs",
    "n_steps",
    "n_episodes",
    "batch_size",
    "n_epochs",
    "max_grad_norm",
    "eval_prompts",
    "micro_batch_tokens",
    "target_kl",
    "target_kl_ref",
    "lora_rank",
    "lora_alpha",
    "buffer_size",
    "target_update_interval",
)

_COUNTS = (
    "total_timesteps",
    "max_new_tokens",
    "n_envs",
    "n_steps",
    "n_episodes",
    "group_size",
    "batch_size",
    "n_epochs",
    "eval_prompts",
)


def check_settings(config: RunConfig) -> None:
    """Raise if a setting is out of its range, or does not go with another.

    Raises:
        TypeError: If it is of another type.
        ValueError: With the value, what was expected, and the cure.
    """
    check_types(config)
    _check_numbers(config)
    _check_schedules(config)
    for name in ("lora_alpha", "lora_targets"):
        if config.lora_rank is None and getattr(config, name) is not None:
            raise ValueError(
                f"{name}={getattr(config, name)!r} is for adapters: give lora_rank, too."
            )
    check_backbone(config.backbone, config.lora_rank, config.gradient_checkpointing)
    _check_algorithm(config)
    rollout = config.n_envs * config.n_steps
    check("n_envs * n_steps", rollout, rollout > 1, "above 1")
    batch_size = config.of_algorithm("batch_size")
    if config.algo == "sb3-ppo" and batch_size < rollout and rollout % batch_size:
        fits = max(d for d in range(1, batch_size + 1) if rollout % d == 0)
        raise ValueError(
            f"batch_size={batch_size} does not divide a rollout of n_envs * n_steps = "
            f"{config.n_envs} * {config.n_steps} = {rollout} tokens, so that the last mini-batch "
            f"of each pass would be smaller. Give batch_size={fits}, or other n_envs."
        )


def foreign_settings(config: RunConfig) -> list[str]:
    """Settings of other algorithms, which this one does not take."""
    return foreign_to(config.algo)


def foreign_to(algo: str) -> list[str]:
    """Settings that an algorithm of this name does not take, and others do."""
    every = frozenset().union(*(named.settings for named in ALGORITHMS.values()))
    return sorted(every - ALGORITHMS[algo].settings)


def _check_numbers(config: RunConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        # No limit to the norm of a gradient is none; anything else would be no number soon.
        if isinstance(value, float) and field.name not in {"max_grad_norm", *SCHEDULES}:
            check(field.name, value, math.isfinite(value), "a finite number")
    for name in _ABOVE_ZERO:
        value = getattr(config, name)
        check(name, value, value is None or value > 0, "above 0")
    for name in _COUNTS:
        value = getattr(config, name)
        check(name, value, value is None or value == int(value), "a whole number")
    check("seed", config.seed, 0 <= config.seed <= MOST_SEED, f"from 0 to {MOST_SEED}")
    for name in ("vf_coef", "top_k", "learning_starts", "kl_coef", "eval_every"):
        value = getattr(config, name)
        check(name, value, value is None or value >= 0, "0 or above")
    for name in ("gamma", "gae_lambda", "sft_coef"):
        value = getattr(config, name)
        check(name, value, value is None or 0 <= value <= 1, "from 0 to 1")
    check("top_p", config.top_p, 0 < config.top_p <= 1, "above 0 and at most 1")
    check("group_size", config.group_size, config.group_size >= 2, "at least 2")


def _check_schedules(config: RunConfig) -> None:
    for name in SCHEDULES:
        spec = getattr(config, name)
        if spec is None:
            continue
        try:
            ends = schedules.initial(spec), schedules.final(spec)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if spec in schedules.PRESETS and name != "temperature":
            raise ValueError(f"{name}={spec!r}: that is a schedule of temperatures.")
        if name == "epsilon":
            check(name, spec, min(ends) >= 0 and max(ends) <= 1, "from 0 to 1")
        elif name == "ent_coef":
            check(name, spec, min(ends) >= 0, "0 or above")
        elif name == "learning_rate":
            check(name, spec, min(ends) >= 0 and max(ends) > 0, "above 0")
        else:
            check(name, spec, min(ends) > 0, "above 0")


def _check_algorithm(config: RunConfig) -> None:
    """Raise if a setting was given that the algorithm does not take."""
    for name in foreign_settings(config):
        value = getattr(config, name)
        if value != config.__dataclass_fields__[name].default:
            takers = [algo for algo, named in ALGORITHMS.items() if name in named.settings]
            raise ValueError(
                f"{name}={value!r} is for --algo {', '.join(takers)}: {config.algo} does not "
                "take it. Leave it out."
            )
    for name in ("temperature", "ent_coef") if config.algorithm.is_stock else ():
        value = getattr(config, name)
        if not isinstance(schedules.make(value), float):
            raise ValueError(
                f"{name}={value!r} is a schedule, and {config.algo} knows none. Give a number, or "
                "one of this library's algorithms."
            )
    episodes = config.n_envs if config.n_episodes is None else config.n_episodes
    if "group_size" in config.algorithm.settings and episodes % config.group_size:
        fits = max(episodes // config.group_size, 1) * config.group_size
        raise ValueError(
            f"{episodes} texts between updates are no whole groups of group_size="
            f"{config.group_size}. Give n_episodes={fits}, or another group_size."
        )
    if config.sft_corpus and not config.sft_coef:
        raise ValueError("sft_corpus is imitated with a sft_coef above 0; give that, too.")


def check(name: str, value: Any, fits: bool, expected: str) -> None:
    """Raise unless a setting's value fits; the message names it as Python and commands do."""
    if not fits:
        option = f" (--{name.replace('_', '-')})" if name.isidentifier() else ""
        raise ValueError(f"{name} must be {expected}, got {value!r}{option}.")
