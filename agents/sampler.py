"""Token ids in; tokens, log-probabilities and values out. Knows no text and no reward."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.language_policy import LanguagePolicy
from agents.sampling import draw


class Draw(NamedTuple):
    """The next token of each row.

    Attributes:
        tokens: int64 (n,).
        log_probs: Their log-probabilities, float32 (n,).
        values: What the critic says of the states in which they were drawn, float32 (n,).
    """

    tokens: Tensor
    log_probs: Tensor
    values: Tensor


class Sampler:
    """Lets a policy write in many rows, each of which may begin a new text at any time.

    What was read is as good as the weights with which it was read: after an update, begin every
    row again.

    Args:
        policy: The policy.
        num_rows: Number of rows, n.

    Attributes:
        policy: The policy.
        num_rows: Rows that were not forgotten.
    """

    def __init__(self, policy: LanguagePolicy, num_rows: int) -> None:
        self.policy, self.num_rows = policy, num_rows
        self._reader = policy.reader_class(policy.backbone, num_rows)

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """Give rows a new context.

        Args:
            rows: Which, (k,), ascending.
            input_ids: Right-padded token ids, (k, T).
            lengths: How many of the T are a row's, (k,).
        """
        self._reader.begin(rows, input_ids, lengths)

    def sample(self, *, deterministic: bool = False) -> Draw:
        """Draw the next token of every row, or take the likeliest; without writing it."""
        logits = self.policy.next_logits(self._reader.seen)
        if deterministic:
            tokens = logits.argmax(-1)
            log_probs = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        else:
            tokens, log_probs = draw(logits)
        return Draw(tokens, log_probs, self.values())

    def append(self, tokens: Tensor) -> None:
        """Write a token at the end of every row, int64 (n,)."""
        self._reader.append(tokens)

    def values(self) -> Tensor:
        """What the critic says of every row as it stands, float32 (n,)."""
        return self.policy.state_values(self._reader.seen)

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all rows but these, (k,), ascending; they become rows 0 to k - 1."""
        self._reader.keep(rows)
        self.num_rows = len(rows)
