"""Templates on trial: which one each row has, and what its text turned out to be worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.dynamics import Rows
from textgym.prompts import Prompt, Prompts


class Trials:
    """Tells the choice between templates what became of those that it chose, in a batch of rows.

    Args:
        prompts: The prompts, with the choice.
        num_rows: Number of rows, n.
    """

    def __init__(self, prompts: Prompts, num_rows: int) -> None:
        self._prompts = prompts
        self._begun: list[Prompt | None] = [None] * num_rows
        self._is_open = np.zeros(num_rows, np.bool_)  # a template is drawn and not yet judged

    def begin(self, rows: Rows, prompts: Sequence[Prompt], *, drawn: bool) -> None:
        """Note what rows begin with, k prompts; trials that were given up count for nothing.

        Args:
            rows: Which, int (k,).
            prompts: Of each.
            drawn: Whether they were drawn here, and not asked for by somebody.
        """
        for row, prompt in zip(rows.tolist(), prompts, strict=True):
            before = self._begun[row]
            if before is not None and self._is_open[row]:
                self._prompts.forget(before)
            self._begun[row], self._is_open[row] = prompt, drawn

    def settle(self, rows: Rows, scores: NDArray[np.float64]) -> None:
        """Tell what the texts of rows, now over, are worth, float64 (k,)."""
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            prompt = self._begun[row]
            if prompt is not None and self._is_open[row]:
                self._prompts.learn(prompt, score)
                self._is_open[row] = False

    def templates(self, rows: Rows) -> NDArray[np.int64]:
        """The template that each of `rows` has, int64 (k,); -1 for none."""
        begun = [self._begun[row] for row in rows.tolist()]
        templates = [-1 if p is None or p.template is None else p.template for p in begun]
        return np.array(templates, np.int64)
