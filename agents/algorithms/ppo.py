"""Proximal policy optimisation on tokens."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents.algorithms.base import TokenOnPolicyAlgorithm
from agents.algorithms.token_batch import TokenBatch
from agents.log_probs import LOGITS_BUDGET
from agents.losses import clipped_surrogate, value_loss
from agents.policy import TransformerPolicy


class TokenPPO(TokenOnPolicyAlgorithm):
    """PPO as Stable-Baselines3 has it, for language models, tens of times faster.

    Stock `PPO(TransformerPolicy, env)` reads the whole text again for every token: in the rollout,
    and in each pass of the update. This one keeps keys and values while it writes, and in the
    update reads every text once. Given the same transitions both take the same step.

    It writes `n_steps` tokens in every environment, estimates advantages (Schulman et al. 2016)
    and takes `n_epochs` passes of the clipped objective (Schulman et al. 2017,
    https://arxiv.org/abs/1707.06347) over them.

    Defaults are SB3's but for these:

    * `gamma=1`: with it, paying at every token or at the end is one and the same objective. Give
      the environment `budget_is_terminal=True`, or nothing holds the value of cut texts in place.
    * `learning_rate=1e-5`: 3e-4 takes a pre-trained model apart. Small models bear 1e-4.
    * `n_steps=128`: environments are cheap here, so that there are many, and texts are short.
    * `batch_size=512`, `n_epochs=4`: as PPO is run on language models (Huang et al. 2023, "The N
      Implementation Details of RLHF with PPO"); 64 tokens are two or three texts.
    * Adam's epsilon is 1e-5, as SB3 sets it for PPO; with 1e-8 the first updates go much too far
      (ibid.).

    What else is different: mini-batches are made of whole texts, since a text is read at once.
    There is no `use_sde` and no other `rollout_buffer_class`. Callbacks find `values` and
    `log_probs` as arrays, and no `obs_tensor`. Logged are SB3's keys and those that TRL's PPO
    made familiar (`objective/kl`, `policy/clipfrac_avg`, ...), as means over tokens; with
    `VecNormalize` they are about the rewards that it gives. `policy/approxkl_avg` is the estimate
    that SB3 uses.

    Args:
        policy: `TransformerPolicy`. What belongs to the network is in `policy_kwargs`: `model`,
            `lora`, `dtype`, `gradient_checkpointing`, `temperature`, `top_k`, `top_p`.
        env: `TextGen-v0` or any environment with its observations, single, or an SB3 vector
            environment such as `make_sb3_vec_env` makes.
        learning_rate: Step size of the optimizer, or a schedule of the remaining progress.
        n_steps: Tokens that each environment gets between updates. Texts that are not finished go
            on in the next rollout.
        batch_size: Tokens of a mini-batch; None for the whole rollout. Texts are not torn apart:
            mini-batches are as many as they would be, and of about this size.
        n_epochs: Passes over the rollout in an update.
        gamma: Discount.
        gae_lambda: Bias (0) against variance (1) of the advantage estimates.
        clip_range: Clipping of the probability ratio, or a schedule.
        clip_range_vf: Clipping of the value's change, or a schedule; None for none. It depends on
            the scale of the rewards.
        normalize_advantage: Whether to normalise advantages over each mini-batch.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Largest norm of a gradient.
        target_kl: Stop an update when a mini-batch's estimate of the KL divergence from the
            policy of the rollout is over 1.5 times this; None for never.
        kl_coef: Penalty on the reward of each token: this, times its log-probability under the
            policy minus that under the reference, which is the model before training (with an
            adapter, the model without it). 0 for no reference.
        target_kl_ref: Let `kl_coef` follow this divergence from the reference, in nats an episode
            (Ziegler et al. 2019, section 2.2); None leaves it as it is.
        micro_batch_tokens: Most tokens, prompts and padding among them, that are read at a time in
            an update. It decides about memory and speed, and never changes the result.
        logits_budget: Most logits that are held at a time. The same holds for it.
        stats_window_size: Episodes over which `rollout/` figures are averaged.
        tensorboard_log: Directory for TensorBoard; None for none.
        policy_kwargs: Arguments of the policy.
        verbose: 1 prints a table after every rollout, 2 says more.
        seed: Seed of prompts, sampling and mini-batches.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If the policy is no `TransformerPolicy`.

    Example:
        >>> from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
        >>> env_kwargs = {"budget_is_terminal": True}
        >>> env = make_sb3_vec_env("TextGen-v0", n_envs=64, env_kwargs=env_kwargs)
        >>> model = TokenPPO(TransformerPolicy, env, 1e-4, n_steps=32, kl_coef=0.05, verbose=1)
        >>> model = model.learn(20_000)
    """

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
        for name, value in {"clip_range": clip_range, "clip_range_vf": clip_range_vf}.items():
            if isinstance(value, (int, float)) and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}.")
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

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        clip_range = self.clip_range(self._current_progress_remaining)
        clipped = (tokens.log_ratio.exp() - 1).abs() > clip_range
        loss = clipped_surrogate(tokens.log_ratio, tokens.advantages, clip_range)
        return loss, {"clip_fraction": clipped.float()}

    def _value_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        values, old_values = tokens.values, tokens.old_values
        if self.clip_range_vf is None:
            return value_loss(values, tokens.returns, old_values, None), {}
        clip_range_vf = self.clip_range_vf(self._current_progress_remaining)
        clipped = (values - old_values).abs() > clip_range_vf
        loss = value_loss(values, tokens.returns, old_values, clip_range_vf)
        return loss, {"value_clip_fraction": clipped.float()}

    def train(self) -> None:
        """Learn from the rollout; see SB3."""
        super().train()
        progress = self._current_progress_remaining
        self.logger.record("train/clip_range", self.clip_range(progress))
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self.clip_range_vf(progress))
