"""The model that a run keeps: the best by validation, or without it the last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gymnasium import spaces

from agents.config import RunConfig
from agents.distributed.processes import join
from agents.language_policy import LanguagePolicy
from agents.run_directory import RunDirectory
from agents.validation import Best, Validation
from textgym.tokenizer import Tokenizer


class KeptModel:
    """Saves the model of a run: the best by validation, or without it the last.

    Processes that train together call it together, and the first of them writes.

    Args:
        config: The settings of the run.
        policy: What is trained.
        tokenizer: Saved with the model.
        run: Where it is saved.

    Attributes:
        chooser: Looks at validation prompts; None if nobody does.
    """

    def __init__(
        self, config: RunConfig, policy: LanguagePolicy, tokenizer: Tokenizer, run: RunDirectory
    ) -> None:
        self.chooser: Validation | None = None
        self._config = config
        self._policy = policy
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
        if self._processes.is_first:
            self._policy.save_pretrained(self._run.model, self._tokenizer, merged=True)
            if self._config.lora_rank is not None:
                self._policy.save_pretrained(self._run.adapter, self._tokenizer)
        self._processes.wait()  # until it is there for all
        self._saved_here = True

    def save_if_none(self) -> None:
        """Save the model as it is, if validation has chosen none."""
        if self.best is None:
            self.save()

    def policy_after(self, timesteps: int) -> LanguagePolicy:
        """The policy whose model was saved.

        Args:
            timesteps: Tokens that the policy has learned from by now.
        """
        if self.best is None or (self._saved_here and self.best.timesteps == timesteps):
            return self._policy
        policy = self._policy
        assert isinstance(policy.action_space, spaces.Discrete)
        of_run = replace(self._config, model=str(self._run.model), backbone=None)
        kept: Any = self._config.algorithm.policy
        made: LanguagePolicy = kept(
            policy.observation_space,
            policy.action_space,
            lambda _: 0.0,
            **{**of_run.policy_kwargs(), "lora": None},
        ).to(policy.device)
        return made
