"""Proximal policy optimisation on tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents.algorithms.base import TokenOnPolicyAlgorithm, Tokens
from agents.log_probs import LOGITS_BUDGET
from agents.losses import clipped_surrogate, value_loss
from agents.policy import TransformerPolicy


class TokenPPO(TokenOnPolicyAlgorithm):
    """SB3's PPO for language models: the same updates, tens of times faster."""

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-5,
        n_steps: int = 128,
        batch_size: int | None = 512,
        n_epochs: int = 4,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        kl_coef: float = 0.0,
        target_kl_ref: float | None = None,
        micro_batch_tokens: int = 8_192,
        logits_budget: int = LOGITS_BUDGET,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        # SB3's names and habit: given as a number or a schedule, and a schedule from then on.
        self.clip_range: Any = clip_range
        self.clip_range_vf: Any = clip_range_vf
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            target_kl=target_kl,
            kl_coef=kl_coef,
            target_kl_ref=target_kl_ref,
            micro_batch_tokens=micro_batch_tokens,
            logits_budget=logits_budget,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def _policy_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        clip_range = self.clip_range(self._current_progress_remaining)
        clipped = (tokens.log_ratio.exp() - 1).abs() > clip_range
        loss = clipped_surrogate(tokens.log_ratio, tokens.advantages, clip_range)
        return loss, {"clip_fraction": clipped.float()}

    def _value_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        values, old_values = tokens.values, tokens.old_values
        if self.clip_range_vf is None:
            return value_loss(values, tokens.returns, old_values, None), {}
        clip_range_vf = self.clip_range_vf(self._current_progress_remaining)
        clipped = (values - old_values).abs() > clip_range_vf
        loss = value_loss(values, tokens.returns, old_values, clip_range_vf)
        return loss, {"value_clip_fraction": clipped.float()}

    def _log_update(self, mean: Mapping[str, float]) -> None:
        super()._log_update(mean)
        progress, record = self._current_progress_remaining, self.logger.record
        record("train/clip_range", self.clip_range(progress))
        record("train/clip_fraction", mean["clip_fraction"])
        record("policy/clipfrac_avg", mean["clip_fraction"])
        if self.clip_range_vf is not None:
            record("train/clip_range_vf", self.clip_range_vf(progress))
            record("val/clipfrac_avg", mean["value_clip_fraction"])
