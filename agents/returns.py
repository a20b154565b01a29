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


def rewards_to_go(
    rewards: NDArray[np.float32], episode_starts: NDArray[np.bool_], gamma: float
) -> NDArray[np.float32]:
    r"""What whole episodes were paid from each token on.

    $$ G_t = \sum_{k \ge t} \gamma^{k-t} r_k $$

    Sutton & Barto 2018, "Reinforcement Learning", section 3.3. These are generalised advantage
    estimates with a critic that says 0, and lambda 1.

    Args:
        rewards: (T, n).
        episode_starts: Whether a step is the first of its episode, (T, n).
        gamma: Discount.

    Returns:
        float32 (T, n).
    """
    nothing = np.zeros_like(rewards[0])
    return gae(
        rewards, np.zeros_like(rewards), episode_starts, nothing, nothing > 0, gamma, gae_lambda=1
    )


def by_episode(
    numbers: NDArray[np.float32], episodes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Numbers of tokens, an episode a line.

    Args:
        numbers: (T, n).
        episodes: Of which of e episodes each token is, (T, n); -1 for none.

    Returns:
        The numbers (e, L), NaN behind an episode's end; and which token of its episode each is,
        int64 (T, n).
    """
    steps = np.arange(len(episodes))[:, None]
    begins = np.diff(episodes, axis=0, prepend=-2) != 0
    positions = steps - np.maximum.accumulate(np.where(begins, steps, 0))
    written = episodes >= 0
    lines = np.full((episodes.max() + 1, positions[written].max() + 1), np.nan, np.float32)
    lines[episodes[written], positions[written]] = numbers[written]
    return lines, positions


def group_centred(
    returns: NDArray[np.float32], *, leave_one_out: bool = False
) -> NDArray[np.float32]:
    r"""How much better episodes did than others of the same prompt.

    $$ A_i = G_i - \frac{1}{|J|} \sum_{j \in J} G_j $$

    J are the episodes of the group (Shao et al. 2024, "DeepSeekMath", section 4.1), with
    `leave_one_out` the others (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for
    Free!"; Ahmadian et al. 2024, "Back to Basics"). The latter is a baseline that does not depend
    on the episode, and so leaves the gradient's expectation as it is; the former shrinks it, by
    (k - 1) / k where k episodes are compared.

    Args:
        returns: Of g groups of G episodes, (g, G, L): of whole episodes (L = 1), or from each of
            their tokens on, NaN behind the end. Each place is compared with the same place in
            those episodes that got there; where there is no other, with 0 if left out.
        leave_one_out: Whether an episode itself stays out of the mean.

    Returns:
        float32 (g, G, L), NaN where the returns are.
    """
    count = np.isfinite(returns).sum(1, keepdims=True)
    total = np.nansum(returns, 1, keepdims=True)
    if leave_one_out:
        total, count = total - returns, count - 1
    centred: NDArray[np.float32] = (returns - total / np.maximum(count, 1)).astype(np.float32)
    return centred
