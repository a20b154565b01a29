"""The model that a run keeps: the best by validation, or without it the last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.config import RunConfig
from agents.distributed.learner import learner_of
from agents.distributed.processes import join
from agents.language_policy import LanguagePolicy, language_policy
from agents.run_directory import RunDirectory
from agents.validation import Best, Validation
from agents.weights import load_weights
from textgym.tokenizer import Tokenizer


class KeptModel:
    """Saves the model of a run: the best by validation, or without it the last.

    Processes that train together call it together, and the first of them writes.

    Args:
        config: The settings of the run.
        algorithm: Trains the policy.
        tokenizer: Saved with the model.
        run: Where it is saved.

    Attributes:
        chooser: Looks at validation prompts; None if nobody does.
    """

    def __init__(
        self,
        config: RunConfig,
        algorithm: BaseAlgorithm,
        tokenizer: Tokenizer,
        run: RunDirectory,
    ) -> None:
        self.chooser: Validation | None = None
        self._config = config
        self._policy = language_policy(algorithm.policy)
        self._learner = learner_of(algorithm)
        self._tokenizer = tokenizer
        self._run = run
        self._processes = join(config.device)
        self._saved_here = False  # and not before the run was stopped and went on

    @property
    def best(self) -> Best | None:
        """The best by validation; None if there is no validation."""
        return None if self.chooser is None else self.chooser.best

    def save(self) -> None:
        """Save the model as it is, whole, and its adapter alone if it has one."""
        policy = self._learner.whole()
        if self._processes.is_first:
            self._write(policy)
        self._processes.wait()  # until it is there for all
        self._saved_here = True

    def save_of(self, weights: Path) -> None:
        """Save the model with the weights of a checkpoint; one process can do so alone."""
        policy = self._policy
        if self._learner.is_sharded:
            policy = self._make(self._config)
        load_weights(policy, weights)
        self._write(policy)

    def save_if_none(self) -> None:
        """Save the model as it is, if validation has chosen none."""
        if self.best is None:
            self.save()

    def policy_after(self, timesteps: int) -> LanguagePolicy:
        """The policy whose model was saved.

        Args:
            timesteps: Tokens that the policy has learned from by now.
        """
        is_last = self.best is None or (self._saved_here and self.best.timesteps == timesteps)
        if is_last and not self._learner.is_sharded:
            return self._policy
        of_run = replace(
            self._config,
            model=str(self._run.model),
            backbone=None,
            lora_rank=None,
            lora_alpha=None,
            lora_targets=None,
        )
        return self._make(of_run)

    def _write(self, policy: LanguagePolicy) -> None:
        policy.save_pretrained(self._run.model, self._tokenizer, merged=True)
        if self._config.lora_rank is not None:
            policy.save_pretrained(self._run.adapter, self._tokenizer)

    def _make(self, config: RunConfig) -> LanguagePolicy:
        """A policy of a model that stands for itself."""
        policy = self._policy
        assert isinstance(policy.action_space, spaces.Discrete)
        kind: Any = config.algorithm.policy
        made: LanguagePolicy = kind(
            policy.observation_space, policy.action_space, lambda _: 0.0, **config.policy_kwargs()
        ).to(policy.device)
        return made
