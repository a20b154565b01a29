"""The settings that all algorithms share, for the type checker, and what they have to fulfil."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import torch
from stable_baselines3.common.type_aliases import Schedule

from agents.supervised.demonstrations import Demonstrations
from textgym.arguments import is_number


class Settings(TypedDict, total=False):
    """Keyword arguments of `TokenOnPolicyAlgorithm`, where they are explained."""

    n_steps: int
    n_episodes: int | None
    batch_size: int | None
    n_epochs: int
    gamma: float
    gae_lambda: float
    normalize_advantage: bool
    ent_coef: float | Schedule
    vf_coef: float
    max_grad_norm: float
    target_kl: float | None
    kl_coef: float
    target_kl_ref: float | None
    temperature: float | Schedule | None
    sft_coef: float
    sft_data: Demonstrations | None
    micro_batch_tokens: int
    logits_budget: int
    shard: bool
    stats_window_size: int
    tensorboard_log: str | None
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: torch.device | str
    _init_setup_model: bool


def with_defaults(defaults: Settings, given: Settings) -> Settings:
    """Settings as they are given, and an algorithm's defaults for the rest."""
    return {**defaults, **given}


MOST_SEED = 2**32 - 1
"""The largest seed that numpy takes."""

_SCHEDULES = ("temperature", "ent_coef", "learning_rate", "epsilon")

_COUNT = (lambda x: 1 <= x < math.inf and x == int(x), "a whole number of at least 1")
_WEIGHT = (lambda x: 0 <= x < math.inf, "0 or above")
_SHARE = (lambda x: 0 <= x <= 1, "from 0 to 1")
_POSITIVE = (lambda x: 0 < x < math.inf, "above 0, or None")

_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "n_steps": _COUNT,
    "n_episodes": _COUNT,
    "batch_size": _COUNT,
    "n_epochs": _COUNT,
    "micro_batch_tokens": _COUNT,
    "logits_budget": _COUNT,
    "buffer_size": _COUNT,
    "target_update_interval": _COUNT,
    "sequence_length": _COUNT,
    "learning_starts": _WEIGHT,
    "learning_rate": _WEIGHT,
    "kl_coef": _WEIGHT,
    "ent_coef": _WEIGHT,
    "vf_coef": _WEIGHT,
    "gamma": _SHARE,
    "gae_lambda": _SHARE,
    "tau": _SHARE,
    "epsilon": _SHARE,
    "sft_coef": _SHARE,
    "target_kl": _POSITIVE,
    "temperature": _POSITIVE,
    "max_grad_norm": (lambda x: x > 0, "above 0, and math.inf for no limit"),
    "seed": (lambda x: 0 <= x <= MOST_SEED and x == int(x), f"from 0 to {MOST_SEED}, or None"),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise if a setting is out of its range; None and schedules are let through.

    Raises:
        TypeError: If it is no number.
        ValueError: With the value, what was expected, and what to do.
    """
    check_ranges(settings)
    target, kl_coef = settings["target_kl_ref"], settings["kl_coef"]
    if target is not None and not (is_number(target) and 0 < target < math.inf and kl_coef > 0):
        raise ValueError(
            f"target_kl_ref={target} with kl_coef={kl_coef}: the target, above 0, steers a "
            "coefficient that begins above 0; try kl_coef=0.1."
        )
    if settings["sft_coef"] > 0 and settings["sft_data"] is None:
        raise ValueError(wants_texts(settings["sft_coef"]))


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise if one of the settings that are there is out of its range; see `check_settings`."""
    for name, (fits, expected) in _RANGES.items():
        value = settings.get(name)
        if value is None or callable(value):
            continue
        if name in _SCHEDULES and isinstance(value, str):
            raise TypeError(
                f"{name} is a number or a schedule, got {value!r}; agents.schedules.make "
                "makes one of it."
            )
        if not is_number(value):
            raise TypeError(f"{name} is a number, got {value!r}.")
        check(name, value, fits(value), expected)


def check(name: str, value: Any, fits: bool, expected: str) -> None:
    """Raise a ValueError unless a value fits."""
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")


def wants_texts(sft_coef: float) -> str:
    """What is said where there is nothing to imitate."""
    return (
        f"sft_coef={sft_coef} wants texts to imitate: give sft_data, such as "
        "Demonstrations.of_task(...). They are not saved with a model: load(..., sft_data=...)."
    )
