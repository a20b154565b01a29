"""What is logged: under SB3's names, and under those by which language models are trained.

The latter are those of TRL, whose readers look for them: `objective/`, `policy/`, `loss/`, `val/`,
`completions/`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger


def log_episodes(logger: Logger, ended: Mapping[str, NDArray[np.float64]]) -> None:
    """Log means over the episodes that ended in a rollout; nothing if there were none.

    Args:
        logger: SB3's logger.
        ended: Sums over the tokens of each episode, (e,) by name: "score", what the environment
            paid; "entropy", minus the log-probabilities; "length"; with a reference model "kl",
            log-probabilities minus the reference's, in nats, and "penalty", what it cost.
    """
    if not len(ended["length"]):
        return
    mean = {name: float(sums.mean()) for name, sums in ended.items()}
    logger.record("objective/scores", mean["score"])
    logger.record("objective/entropy", mean["entropy"])
    if "kl" in mean:
        logger.record("objective/kl", mean["kl"])
    if "penalty" in mean:
        logger.record("objective/non_score_reward", mean["penalty"])
        logger.record("objective/rlhf_reward", mean["score"] + mean["penalty"])
    logger.record("completions/mean_length", mean["length"])
    logger.record("completions/min_length", float(ended["length"].min()))
    logger.record("completions/max_length", float(ended["length"].max()))


def log_update(logger: Logger, mean: Mapping[str, float]) -> None:
    """Log an update.

    Args:
        logger: SB3's logger.
        mean: Means over all tokens that were read, by name; "last_loss" and "last_approx_kl" are
            those of the last mini-batch and of the last pass, as SB3 logs them; "first_approx_kl"
            is that of the first mini-batch, before any step, and so 0 but for rounding.
    """
    logger.record("train/entropy_loss", -mean["entropy"])
    logger.record("train/policy_gradient_loss", mean["policy_loss"])
    logger.record("train/approx_kl", mean["last_approx_kl"])
    logger.record("train/loss", mean["last_loss"])
    logger.record("policy/approxkl_avg", mean["approx_kl"])
    logger.record("policy/approxkl_first", mean["first_approx_kl"])
    logger.record("policy/entropy_avg", mean["entropy"])
    logger.record("loss/policy_avg", mean["policy_loss"])
    logger.record("val/ratio", mean["ratio"])
    logger.record("val/ratio_var", max(mean["ratio_squared"] - mean["ratio"] ** 2, 0.0))
    if "value_loss" in mean:
        logger.record("train/value_loss", mean["value_loss"])
        logger.record("loss/value_avg", mean["value_loss"])
    if "clip_fraction" in mean:
        logger.record("train/clip_fraction", mean["clip_fraction"])
        logger.record("policy/clipfrac_avg", mean["clip_fraction"])
    if "value_clip_fraction" in mean:
        logger.record("val/clipfrac_avg", mean["value_clip_fraction"])
