"""The terms of a loss, one number a token: pure functions of tensors.

Losses come without a mean, so that a mini-batch can be split into parts of any size: what is
minimised is their sum over the mini-batch, divided by its number of tokens or of texts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalized(advantages: Tensor, of_all: tuple[float, float] | None = None) -> Tensor:
    """Advantages of a mini-batch with mean 0 and standard deviation 1, (n,).

    As Stable-Baselines3 does it; a single one is left as it is.

    Args:
        advantages: Those to normalise, (n,).
        of_all: Mean and standard deviation of the mini-batch, if these are a part of it only.
    """
    if of_all is not None:
        mean, deviation = of_all
        return (advantages - mean) / (deviation + 1e-8)
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    r"""PPO's policy loss, (n,).

    $$ -\min\left(\rho A, \operatorname{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A\right),
       \qquad \rho = \pi(a|s) / \pi_\text{old}(a|s) $$

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7.

    Args:
        log_ratio: Logarithm of the ratio, (n,).
        advantages: (n,).
        clip_range: Epsilon.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.min(ratio * advantages, clipped * advantages)


def value_loss(
    values: Tensor, returns: Tensor, old_values: Tensor, clip_range_vf: float | None
) -> Tensor:
    """Squared error of the critic, (n,).

    Args:
        values: What the critic says now, (n,).
        returns: What it should say, (n,).
        old_values: What it said in the rollout, (n,).
        clip_range_vf: Values count as at most so far from the old ones; None for no limit. As in
            Stable-Baselines3, there is no maximum with the unclipped error.
    """
    if clip_range_vf is not None:
        values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
    return (returns - values) ** 2


def approximate_kl(log_ratio: Tensor) -> Tensor:
    r"""An unbiased estimate of KL(old, new) from actions of the old policy, (n,).

    $$ (\rho - 1) - \log \rho $$

    It is never negative. Schulman 2020, http://joschu.net/blog/kl-approx.html, there k3.
    """
    return torch.expm1(log_ratio) - log_ratio


def adapted_kl_coef(kl_coef: float, kl: float, target: float, gain: float = 0.1) -> float:
    r"""The coefficient of a KL penalty that follows a target.

    $$ \beta' = \beta \left(1 + K \operatorname{clip}\left(
       \frac{\text{KL}}{\text{target}} - 1, -0.2, 0.2\right)\right) $$

    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2.

    Args:
        kl_coef: The coefficient so far.
        kl: The KL that was measured, in nats.
        target: The KL that is wanted, in nats.
        gain: K, what an error of 1 would change it by.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + gain * error)


def kl_of_policy(log_probs: Tensor, ref_log_probs: Tensor, log_ratio: Tensor) -> Tensor:
    r"""An estimate of KL(policy, reference) to be minimised, (n,).

    $$ \rho \left(\frac{\pi_\text{ref}}{\pi} - \log \frac{\pi_\text{ref}}{\pi} - 1\right) $$

    The term in brackets is Schulman's k3 (see `approximate_kl`) for tokens of the policy itself,
    as in GRPO (Shao et al. 2024, "DeepSeekMath", equation 4). Its own gradient is not that of the
    KL divergence; with the ratio to the policy that wrote the tokens it is (DeepSeek-AI 2025,
    "DeepSeek-V3.2", section 3.1).

    Args:
        log_probs: Of the policy, with gradient, (n,).
        ref_log_probs: Of the reference, (n,).
        log_ratio: Logarithm of the ratio of the policy to that of the rollout, (n,).
    """
    difference = ref_log_probs - log_probs
    return log_ratio.exp() * (torch.expm1(difference) - difference)


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    r"""What has the policy gradient as its own, (n,).

    $$ -A \log \pi(a \mid s) $$

    Williams 1992, "Simple Statistical Gradient-Following Algorithms", equation 5.
    """
    return -advantages * log_probs
