"""Variety: n-grams that the text has not had before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.parameters import check_choice, check_whole_number


@dataclass
class Repetition:
    """How little the text repeats itself: its distinct n-grams of tokens, from 0 to 1.

    With d distinct n-grams in t tokens, the end-of-text token not counted, the score is

    * d / (`max_new_tokens` - n + 1) out of the budget: a token that ends a new n-gram earns its
      share and one that repeats an n-gram earns nothing. Only a text that fills its budget and
      repeats nothing scores 1;
    * d / (t - n + 1) out of the text, which is distinct-n: the share of its n-grams that are
      distinct. The first n-gram earns 1 and each repetition costs. A text of n tokens has the
      best score already, so this wants a reward for length beside it.

    A text of fewer than n tokens, such as the empty one, scores 0.

    Args:
        n: How many tokens make an n-gram, at least 1.
        out_of: "budget" or "text".

    Raises:
        ValueError: If `n` is not a whole number of at least 1, or `out_of` is something else.

    Source: distinct-n of J. Li et al., A Diversity-Promoting Objective Function for Neural
    Conversation Models, NAACL 2016.
    """

    n: int = 2
    out_of: str = "budget"
    _seen: list[set[bytes]] = field(default_factory=list, init=False, repr=False, compare=False)

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_whole_number("repetition", "n", self.n, least=1)
        check_choice("repetition", "out_of", self.out_of, ("budget", "text"))

    def start(self, rows: Rows, completions: Completions) -> None:
        """No n-gram has been seen yet in `rows`."""
        if len(self._seen) != completions.num_rows:
            self._seen = [set() for _ in range(completions.num_rows)]
        for row in rows.tolist():
            self._seen[row] = set()

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the score gained by the n-gram that the token ends, float32 (k,)."""
        rewards = np.zeros(len(rows), np.float32)
        written = completions.lengths(rows)
        ends_ngram = (written >= self.n) & (tokens != completions.tokenizer.eos_token_id)
        for k in ends_ngram.nonzero()[0].tolist():
            row, total = int(rows[k]), int(written[k]) - self.n + 1
            seen = self._seen[row]
            before = len(seen)
            seen.add(completions.token_ids(row)[-self.n :].tobytes())
            if self.out_of == "budget":
                rewards[k] = (len(seen) - before) / (completions.max_new_tokens - self.n + 1)
            else:
                rewards[k] = len(seen) / total - before / max(1, total - 1)
        return rewards
