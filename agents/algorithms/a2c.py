"""Advantage actor-critic on tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor
from typing_extensions import Unpack

from agents.algorithms.base import TokenOnPolicyAlgorithm
from agents.algorithms.settings import Settings, with_defaults
from agents.algorithms.token_batch import TokenBatch
from agents.losses import policy_gradient
from agents.policy import TransformerPolicy


class TokenA2C(TokenOnPolicyAlgorithm):
    r"""A2C as Stable-Baselines3 has it, for language models: one step along the policy gradient.

    The synchronous form of Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement
    Learning", https://arxiv.org/abs/1602.01783: after a few tokens in every environment the policy
    takes a single step, on all of them at once, along

    $$ \frac{1}{m} \sum_t A_t \, \nabla \log \pi(a_t \mid s_t) $$

    with advantages of a critic that learns along. Given the same transitions it takes the same
    step as stock `A2C(TransformerPolicy, env)`.

    It assumes that tokens are of the policy as it is: there is one pass, and nothing is clipped,
    so that the learning rate alone decides how far a step goes. Take it where rewards come at
    once and a critic can tell after few tokens how a text does.

    Defaults are SB3's (`n_steps=5`, `gae_lambda=1`, RMSprop) but for `gamma=1` and
    `learning_rate=1e-4`; see `TokenPPO`.

    Args:
        policy, env, learning_rate: See `TokenOnPolicyAlgorithm`.
        use_rms_prop: RMSprop, as SB3 has it, instead of the policy's own optimizer, Adam.
        rms_prop_eps: Its epsilon.
        **settings: What all algorithms have; see `TokenOnPolicyAlgorithm`.
    """

    one_step = True
    defaults: ClassVar[Settings] = {"n_steps": 5, "gae_lambda": 1.0}

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        *,
        use_rms_prop: bool = True,
        rms_prop_eps: float = 1e-5,
        **settings: Unpack[Settings],
    ) -> None:
        policy_kwargs = dict(settings.get("policy_kwargs") or {})
        if use_rms_prop and "optimizer_class" not in policy_kwargs:
            policy_kwargs["optimizer_class"] = torch.optim.RMSprop
            policy_kwargs["optimizer_kwargs"] = {
                "alpha": 0.99,
                "eps": rms_prop_eps,
                "weight_decay": 0,
            }
        settings["policy_kwargs"] = policy_kwargs
        super().__init__(policy, env, learning_rate, **with_defaults(self.defaults, settings))

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return policy_gradient(tokens.log_probs, tokens.advantages), {}
