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
        self.give_up(rows)
        for row, prompt in zip(rows.tolist(), prompts, strict=True):
            self._begun[row], self._is_open[row] = prompt, drawn

    def give_up(self, rows: Rows) -> None:
        """Leave the episodes of rows, int (k,), without a result."""
        for row in rows.tolist():
            prompt = self._begun[row]
            if prompt is not None and self._is_open[row]:
                self._prompts.forget(prompt)
                self._is_open[row] = False

    def settle(self, rows: Rows, scores: NDArray[np.float64]) -> None:
        """Tell what the texts of rows, now over, are worth, float64 (k,)."""
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            prompt = self._begun[row]
            if prompt is not None and self._is_open[row]:
                self._prompts.learn(prompt, score)
                self._is_open[row] = False

    def is_open(self, row: int) -> bool:
        """Whether a row has a template that was drawn and is not yet judged."""
        return bool(self._is_open[row])

    def take_up(self, row: int, *, is_open: bool) -> None:
        """Note that a row goes on with its template, which was drawn once before."""
        prompt, self._is_open[row] = self._begun[row], is_open
        if is_open and prompt is not None:
            self._prompts.repeat(prompt)

    def templates(self, rows: Rows) -> NDArray[np.int64]:
        """The template that each of `rows` has, int64 (k,); -1 for none."""
        templates = map(self.template, rows.tolist())
        return np.array([-1 if template is None else template for template in templates], np.int64)

    def template(self, row: int) -> int | None:
        """The template that a row has; None for none."""
        prompt = self._begun[row]
        return None if prompt is None else prompt.template
