"""What algorithms have in common that clip how far an update may go."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor
from typing_extensions import Unpack

from agents.algorithms.base import TokenOnPolicyAlgorithm
from agents.algorithms.settings import Settings, check
from agents.losses import clipped_surrogate
from agents.policy import TransformerPolicy


class ClippedAlgorithm(TokenOnPolicyAlgorithm):
    """Several steps on the same texts, in which the probability ratio is clipped.

    Args:
        policy, env, learning_rate: See `TokenOnPolicyAlgorithm`.
        clip_range: Clipping of the probability ratio, or a schedule.
        **settings: What all algorithms have; see `TokenOnPolicyAlgorithm`.
    """

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-5,
        *,
        clip_range: float | Schedule = 0.2,
        **settings: Unpack[Settings],
    ) -> None:
        if not callable(clip_range):
            check("clip_range", clip_range, clip_range > 0, "above 0")
        # SB3's name and habit: given as a number or a schedule, and a schedule from then on.
        self.clip_range: Any = clip_range
        super().__init__(policy, env, learning_rate, **settings)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)

    def _clipped_loss(
        self, log_ratio: Tensor, advantages: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's loss of each ratio, (m,), and where it was clipped."""
        clip_range = self.clip_range(self._current_progress_remaining)
        clipped = (log_ratio.exp() - 1).abs() > clip_range
        loss = clipped_surrogate(log_ratio, advantages, clip_range)
        return loss, {"clip_fraction": clipped.float()}

    def train(self) -> None:
        """Learn from the rollout; see SB3."""
        super().train()
        clip_range = self.clip_range(self._current_progress_remaining)
        self.logger.record("train/clip_range", clip_range)
