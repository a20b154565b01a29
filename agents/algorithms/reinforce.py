"""The policy gradient in its oldest form, on whole texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor
from typing_extensions import Unpack

from agents.algorithms.base import TokenOnPolicyAlgorithm
from agents.algorithms.settings import Settings
from agents.algorithms.token_batch import TokenBatch
from agents.losses import policy_gradient
from agents.policy import TransformerPolicy
from agents.returns import rewards_to_go


class Reinforce(TokenOnPolicyAlgorithm):
    r"""REINFORCE: what a token's future paid makes the token likelier.

    Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist
    Reinforcement Learning", https://doi.org/10.1007/BF00992696. Whole texts are written, and the
    policy takes one step along the mean over texts of

    $$ \sum_t (G_t - b(s_t)) \, \nabla \log \pi(a_t \mid s_t),
       \qquad G_t = \sum_{k \ge t} \gamma^{k-t} r_k $$

    A token is credited with what was paid from it on, and never with what was paid before. With
    `gamma=1` this is an unbiased estimate of the policy gradient whatever the baseline b says of
    the state; a good one takes most of its variance away. It is learned by a critic (Sutton &
    Barto 2018, "Reinforcement Learning", section 13.4), or there is none.

    It assumes that texts are of the policy as it is: one pass, one step. Take it as the plain
    truth to compare others with, or where a critic's bias does harm.

    Args:
        policy, env, learning_rate: See `TokenOnPolicyAlgorithm`.
        baseline: Whether a critic learns what to expect of a state. Otherwise b is 0.
        **settings: What all algorithms have; see `TokenOnPolicyAlgorithm`. `n_episodes` is one
            for each environment by default.
    """

    averages_over = "texts"
    whole_episodes = True
    one_step = True

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        *,
        baseline: bool = True,
        **settings: Unpack[Settings],
    ) -> None:
        self.baseline = baseline
        if not baseline:
            settings["vf_coef"] = 0.0
        super().__init__(policy, env, learning_rate, **settings)

    def _estimate_advantages(
        self, last_values: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        buffer = self.rollout_buffer
        buffer.returns = rewards_to_go(buffer.rewards, buffer.episode_starts, self.gamma)
        buffer.advantages = buffer.returns - buffer.values * self.baseline

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return policy_gradient(tokens.log_probs, tokens.advantages), {}
