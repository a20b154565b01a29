"""One wanted token: the identity task, which every algorithm must solve."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows, index
from textgym.rewards.base import RewardError


class TargetToken:
    """The share of tokens that are the wanted one, from 0 to 1; 1 counts as success.

    Each token that is the target earns 1 / `max_new_tokens`, any other 0, the end-of-text token
    included. The empty text scores 0.

    Args:
        target: The wanted token's text. None takes the prompt's reference, so that the wanted
            token depends on the prompt.

    Raises:
        RewardError: When an episode begins, if there is neither a target nor a reference, or it
            is not one token of the vocabulary.
    """

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    success_threshold: ClassVar[float] = 1.0

    def __init__(self, target: str | None = None) -> None:
        self.target = target
        self._wanted = np.zeros(0, np.int64)
        self._ids: dict[str | None, int] = {}

    def start(self, rows: Rows, completions: Completions) -> None:
        """Look up the wanted token of each row."""
        if len(self._wanted) != completions.num_rows:
            self._wanted = np.zeros(completions.num_rows, np.int64)
        for row in rows.tolist():
            text = completions.examples[row].reference if self.target is None else self.target
            if text not in self._ids:
                self._ids[text] = _single_token(text, row, completions)
            self._wanted[row] = self._ids[text]

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """1 / `max_new_tokens` for the wanted token and 0 for any other, float32 (k,)."""
        found = tokens == self._wanted[index(rows, completions.num_rows)]
        rewards: NDArray[np.float32] = found * np.float32(1.0 / completions.max_new_tokens)
        return rewards


def _single_token(text: str | None, row: int, completions: Completions) -> int:
    if text is None:
        problem = (
            "needs a target, and this prompt has no reference to take it from; give "
            "{'name': 'target_token', 'target': '...'} or a task with references"
        )
        raise RewardError("target_token", problem, completions.sample(row))
    ids = completions.tokenizer.encode_plain(text)
    if len(ids) != 1:
        problem = (
            f"wants {text!r}, which is {len(ids)} tokens for {completions.tokenizer}; expected "
            "one. Choose a shorter or more common text"
        )
        raise RewardError("target_token", problem, completions.sample(row))
    return ids[0]
