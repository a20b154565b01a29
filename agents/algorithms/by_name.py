"""Algorithms by name, as the command line has them, and which settings each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.algorithms.a2c import TokenA2C
from agents.algorithms.collect import TokenCollector
from agents.algorithms.dqn import TokenDQN
from agents.algorithms.grpo import GRPO
from agents.algorithms.ppo import TokenPPO
from agents.algorithms.reinforce import Reinforce
from agents.algorithms.rloo import RLOO
from agents.algorithms.update import TokenLearner
from agents.language_policy import LanguagePolicy
from agents.policy import TransformerPolicy
from agents.q_policy import TransformerQPolicy
from textgym.registry import did_you_mean


@dataclass(frozen=True)
class NamedAlgorithm:
    """An algorithm as a training run has it.

    Attributes:
        kind: Its class.
        what: What it is, in a few words.
        settings: The settings of a run that it takes, beside those that all take.
        defaults: What suits the built-in model, for settings that are None.
        policy: What it trains.
    """

    kind: type[BaseAlgorithm]
    what: str
    settings: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    policy: type[LanguagePolicy] = TransformerPolicy

    @property
    def is_stock(self) -> bool:
        """Whether it is Stable-Baselines3's own."""
        return self.kind in (A2C, DQN, PPO)

    @property
    def learns_together(self) -> bool:
        """Whether several processes can train one model with it."""
        return issubclass(self.kind, TokenLearner)

    @property
    def is_greedy(self) -> bool:
        """Whether what it trains writes the best token each time, and draws none."""
        return issubclass(self.policy, TransformerQPolicy)


_STEPS = {"n_steps", "gae_lambda", "vf_coef"}
_PASSES = {"batch_size", "n_epochs"}
_CLIPPED = {*_PASSES, "clip_range", "target_kl"}
_DRAWING = {"temperature", "top_k", "top_p"}
_ON_POLICY = {"ent_coef", *_DRAWING}
_OURS = {
    *_ON_POLICY,
    "kl_coef",
    "target_kl_ref",
    "sft_coef",
    "sft_corpus",
    "n_episodes",
    "micro_batch_tokens",
    "shard",
}
_GROUPS = {*_OURS, *_CLIPPED, "group_size", "credit"}
_Q = {"n_steps", *_PASSES, "epsilon", "buffer_size", "learning_starts", "target_update_interval"}

_NEAR = {"kl_coef": 0.07}

ALGORITHMS: dict[str, NamedAlgorithm] = {
    "ppo": NamedAlgorithm(
        TokenPPO,
        "proximal policy optimisation: a critic, and clipped steps",
        frozenset(_OURS | _STEPS | _CLIPPED),
        {"learning_rate": 1e-4, "batch_size": 512, "n_epochs": 2, "gae_lambda": 0.9, **_NEAR},
    ),
    "a2c": NamedAlgorithm(
        TokenA2C,
        "advantage actor-critic: a critic, and one step a rollout",
        frozenset(_OURS | _STEPS),
        {"learning_rate": 1e-4, "gae_lambda": 0.9, **_NEAR},
    ),
    "reinforce": NamedAlgorithm(
        Reinforce,
        "the policy gradient on whole texts, with a learned baseline or none",
        frozenset(_OURS | {"vf_coef", "baseline"}),
        {"learning_rate": 3e-4, **_NEAR},
    ),
    "grpo": NamedAlgorithm(
        GRPO,
        "groups of texts of one prompt, each compared with the mean of its group",
        frozenset(_GROUPS),
        {"learning_rate": 1e-4, "batch_size": 512, "n_epochs": 2, **_NEAR},
    ),
    "rloo": NamedAlgorithm(
        RLOO,
        "groups of texts of one prompt, each compared with the mean of the others",
        frozenset(_GROUPS),
        {"learning_rate": 1e-4, "batch_size": 512, "n_epochs": 2, **_NEAR},
    ),
    "dqn": NamedAlgorithm(
        TokenDQN,
        "deep Q-learning: what each token is worth, from old texts too",
        frozenset({*_Q, "double", "sft_coef", "sft_corpus"}),
        {"learning_rate": 3e-4, "batch_size": 512, "n_epochs": 4},
        TransformerQPolicy,
    ),
    "sb3-ppo": NamedAlgorithm(
        PPO,
        "Stable-Baselines3's own PPO",
        frozenset(_ON_POLICY | _STEPS | _CLIPPED),
        {"learning_rate": 1e-4, "batch_size": 512, "n_epochs": 2, "gae_lambda": 0.9},
    ),
    "sb3-a2c": NamedAlgorithm(
        A2C,
        "Stable-Baselines3's own A2C",
        frozenset(_ON_POLICY | _STEPS),
        {"learning_rate": 1e-4, "gae_lambda": 0.9},
    ),
    "sb3-dqn": NamedAlgorithm(
        DQN,
        "Stable-Baselines3's own DQN",
        frozenset(_Q),
        {"learning_rate": 3e-4, "batch_size": 512, "n_epochs": 4},
        TransformerQPolicy,
    ),
}
"""What `textgym train --algo` takes."""


def documentation(name: str) -> str:
    """All about one algorithm: what its class says.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"no algorithm {name!r}; {did_you_mean(name, ALGORITHMS)}.")
    named = ALGORITHMS[name]
    ours = [base for base in named.kind.__mro__ if base.__module__.startswith("agents.algorithms")]
    described = [
        base for base in ours or [named.kind] if base not in (TokenCollector, TokenLearner)
    ]
    parts = [f"{base.__module__}.{base.__name__}\n\n{inspect.getdoc(base)}" for base in described]
    defaults = ", ".join(f"{key}={value:g}" for key, value in named.defaults.items())
    return "\n\n\n".join([*parts, f"textgym train --algo {name} has {defaults} by default."])
