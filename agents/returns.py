"""From rewards to what an algorithm learns from: pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gae(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    episode_starts: NDArray[np.bool_],
    last_values: NDArray[np.float32],
    last_dones: NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    r"""Generalised advantage estimates.

    $$ \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t), \qquad
       A_t = \delta_t + \gamma \lambda A_{t+1}, $$

    where V and A of what comes after the end of an episode are 0. Schulman et al. 2016, "High-
    Dimensional Continuous Control Using Generalized Advantage Estimation", equations 11 and 16.
    The sums A + V are what the critic is trained on, TD(lambda) returns.

    Args:
        rewards: (T, n).
        values: The critic's values of the states in which the actions were taken, (T, n).
        episode_starts: Whether a step is the first of its episode, (T, n).
        last_values: Values of the states after the last step, (n,); not read where it was done.
        last_dones: Whether the last step ended its episode, (n,).
        gamma: Discount.
        gae_lambda: Bias (0) against variance (1).

    Returns:
        Advantages, float32 (T, n).
    """
    advantages = np.empty_like(rewards)
    goes_on = np.logical_not(last_dones)
    next_values: NDArray[np.float32] = last_values
    advantage: NDArray[np.float32] = np.zeros_like(last_values)
    for step in range(len(rewards) - 1, -1, -1):
        next_value = np.where(goes_on, next_values, 0)
        delta = rewards[step] + gamma * next_value - values[step]
        advantage = delta + gamma * gae_lambda * np.where(goes_on, advantage, 0)
        advantages[step] = advantage
        goes_on, next_values = np.logical_not(episode_starts[step]), values[step]
    return advantages
