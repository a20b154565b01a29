"""The settings that all algorithms share, for the type checker, and what they have to fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from stable_baselines3.common.type_aliases import Schedule

from agents.supervised.demonstrations import Demonstrations


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


_COUNTS = (
    "n_steps",
    "n_episodes",
    "batch_size",
    "n_epochs",
    "micro_batch_tokens",
    "logits_budget",
)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise if a setting is out of its range; None and schedules are let through.

    Raises:
        ValueError: With the value, what was expected, and what to do.
    """
    for name, value in settings.items():
        if value is None or callable(value):
            continue
        if name in ("temperature", "ent_coef", "learning_rate") and isinstance(value, str):
            raise TypeError(
                f"{name} is a number or a schedule, got {value!r}; agents.schedules.make "
                "makes one of it."
            )
        if name in _COUNTS:
            check(name, value, value >= 1 and value == int(value), "a whole number of at least 1")
        elif name in ("kl_coef", "ent_coef", "vf_coef"):
            check(name, value, value >= 0, "0 or above")
        elif name in ("gamma", "gae_lambda", "sft_coef"):
            check(name, value, 0 <= value <= 1, "from 0 to 1")
        elif name in ("target_kl", "temperature"):
            check(name, value, value > 0, "above 0, or None")
    target, kl_coef = settings["target_kl_ref"], settings["kl_coef"]
    if target is not None and not (target > 0 and kl_coef > 0):
        raise ValueError(
            f"target_kl_ref={target} with kl_coef={kl_coef}: the target, above 0, steers a "
            "coefficient that begins above 0; try kl_coef=0.1."
        )
    if settings["sft_coef"] > 0 and settings["sft_data"] is None:
        raise ValueError(wants_texts(settings["sft_coef"]))


def check(name: str, value: float, fits: bool, expected: str) -> None:
    """Raise a ValueError unless a value fits."""
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")


def wants_texts(sft_coef: float) -> str:
    """What is said where there is nothing to imitate."""
    return (
        f"sft_coef={sft_coef} wants texts to imitate: give sft_data, such as "
        "Demonstrations.of_task(...). They are not saved with a model: load(..., sft_data=...)."
    )
