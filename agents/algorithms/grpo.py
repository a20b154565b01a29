"""Group relative policy optimisation on tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithms.groups import GroupAlgorithm
from agents.algorithms.token_batch import TokenBatch
from agents.losses import kl_of_policy
from agents.returns import group_centred


class GRPO(GroupAlgorithm):
    r"""GRPO: PPO without a critic; the other texts of a prompt say what was to be expected.

    Shao et al. 2024, "DeepSeekMath", https://arxiv.org/abs/2402.03300. A text's advantage is how
    many standard deviations of its group it is above the group's mean,

    $$ A_i = \frac{G_i - \operatorname{mean}_j G_j}{\operatorname{std}_j G_j + 10^{-4}} $$

    and the policy is improved by PPO's clipped objective. The penalty for leaving the reference,
    weighted by `kl_coef` (beta), is a term of the loss and not of the reward.

    With `credit="sequence"` this is what TRL's GRPOTrainer computes with `loss_type="bnpo"`, a
    mean over tokens. With `credit="token"`, for rewards that are paid at every token, $G_{i,t}$
    is what a text was paid from its t-th token on, the mean is over the texts of the group that got
    as far, and the spread is that of all these differences; the paper's own way with rewards of
    steps (section 4.1.3) centres single rewards instead of what is still to come, and thereby pays
    for length. A mean that includes the text itself makes the gradient smaller, at the last
    places of long texts more than at the first; `RLOO` is free of that.

    It assumes that texts of one prompt can be compared, and that prompts are at least worth
    several texts each. Take it where a critic is hard to learn or does not fit into memory.

    Its arguments are those of `GroupAlgorithm`. The reward's scale does not matter: each group is
    divided by its own spread.
    """

    penalizes_reward = False

    def _compare(self, returns: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = group_centred(returns)
        compared = np.isfinite(centred).sum((1, 2), keepdims=True)
        squares = np.nansum(centred**2, (1, 2), keepdims=True)
        spread: NDArray[np.float32] = np.sqrt(squares / (compared - 1)).astype(np.float32)
        return centred / (spread + np.float32(1e-4))

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logged = self._clipped_loss(tokens.log_ratio, tokens.advantages)
        if self.reference is not None:
            kl = kl_of_policy(tokens.log_probs, tokens.ref_log_probs, tokens.log_ratio)
            loss = loss + self.kl_coef * kl
        return loss, logged
