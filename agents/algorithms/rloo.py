"""REINFORCE with the other texts of a prompt as its baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithms.groups import GroupAlgorithm
from agents.algorithms.token_batch import TokenBatch
from agents.returns import group_centred


class RLOO(GroupAlgorithm):
    r"""RLOO: REINFORCE with a baseline that costs no critic, and is no part of the text itself.

    Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; Ahmadian et al. 2024,
    "Back to Basics", https://arxiv.org/abs/2402.14740. A text's advantage is what it was paid
    above the mean of the others of its prompt,

    $$ A_i = G_i - \frac{1}{G - 1} \sum_{j \ne i} G_j $$

    which leaves the policy gradient unbiased. Losses are summed over the tokens of a text and
    averaged over texts. The probability ratio is clipped, as in TRL's RLOOTrainer, for when there
    are several steps an update; the penalty for leaving the reference is part of the reward.

    With `credit="sequence"` it computes what TRL's RLOOTrainer does: the ratio is that of the
    whole text, the product over its tokens (in a task of several turns, over those of a turn).
    With `credit="token"`, for rewards that are paid at every token, $G_{i,t}$ is what was paid
    from the t-th token on, the others are those that got as far, and the ratio is the token's.

    It assumes that texts of one prompt can be compared. Take it where GRPO's division by the
    spread of a group makes too much of groups that hardly differ.

    Its arguments are those of `GroupAlgorithm`.
    """

    averages_over = "texts"

    def _compare(self, returns: NDArray[np.float32]) -> NDArray[np.float32]:
        return group_centred(returns, leave_one_out=True)

    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        log_ratio = tokens.log_ratio
        if self.credit == "sequence":
            log_ratio = tokens.sum_by_text(log_ratio)
        loss, logged = self._clipped_loss(log_ratio, tokens.advantages)
        if self.credit == "sequence":
            loss = loss / tokens.text_lengths  # it is the text's, at each of its tokens
        return loss, logged
