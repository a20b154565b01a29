"""Proximal policy optimisation on tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor
from typing_extensions import Unpack

from agents.algorithms.clipped import ClippedAlgorithm
from agents.algorithms.settings import Settings, check, with_defaults
from agents.algorithms.token_batch import TokenBatch
from agents.losses import value_loss
from agents.policy import TransformerPolicy


class TokenPPO(ClippedAlgorithm):
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

    Args:
        policy, env, learning_rate: See `TokenOnPolicyAlgorithm`.
        clip_range: Clipping of the probability ratio, or a schedule.
        clip_range_vf: Clipping of the value's change, or a schedule; None for none. It depends on
            the scale of the rewards.
        **settings: What all algorithms have; see `TokenOnPolicyAlgorithm`.

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

    defaults: ClassVar[Settings] = {
        "n_steps": 128,
        "batch_size": 512,
        "n_epochs": 4,
        "normalize_advantage": True,
    }

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-5,
        *,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if clip_range_vf is not None and not callable(clip_range_vf):
            check("clip_range_vf", clip_range_vf, clip_range_vf > 0, "above 0, or None")
        self.clip_range_vf: Any = clip_range_vf  # as SB3, a schedule once it is set up
        settings = with_defaults(self.defaults, settings)
        super().__init__(policy, env, learning_rate, clip_range=clip_range, **settings)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._clipped_loss(tokens.log_ratio, tokens.advantages)

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
        if self.clip_range_vf is not None:
            clip_range_vf = self.clip_range_vf(self._current_progress_remaining)
            self.logger.record("train/clip_range_vf", clip_range_vf)
