"""Variety: n-grams that the text has not had before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows, index
from textgym.rewards.parameters import check_choice, check_whole_number


@dataclass(slots=True)
class _Written:
    """What is remembered of a row.

    Attributes:
        seen: Its n-grams.
        total: How many there were, repetitions included.
        last: The last tokens of the turn that goes on, n - 1 at most.
    """

    seen: set[tuple[int, ...]] = field(default_factory=set)
    total: int = 0
    last: tuple[int, ...] = ()


@dataclass
class Repetition:
    """How little the text repeats itself: its distinct n-grams of tokens, from 0 to 1.

    With d distinct n-grams in t tokens, those that end a text or a turn not counted, the score is

    * d / (`max_new_tokens` - n + 1) out of the budget: a token that ends a new n-gram earns its
      share and one that repeats an n-gram earns nothing. Only a text that fills its budget and
      repeats nothing scores 1;
    * d / (t - n + 1) out of the text, which is distinct-n: the share of its n-grams that are
      distinct. The first n-gram earns 1 and each repetition costs. A text of n tokens has the
      best score already, so this wants a reward for length beside it.

    A text of fewer than n tokens, such as the empty one, scores 0.

    In a task of several turns no n-gram reaches from one turn into the next, since an answer stands
    between them; out of the text, d is divided by the number of n-grams in all turns. What an
    earlier turn said already is a repetition.

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
    _written: list[_Written] = field(default_factory=list, init=False, repr=False, compare=False)
    _replied: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False, compare=False
    )

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_whole_number("repetition", "n", self.n, least=1)
        check_choice("repetition", "out_of", self.out_of, ("budget", "text"))

    def start(self, rows: Rows, completions: Completions) -> None:
        """No n-gram has been seen yet in `rows`."""
        if len(self._written) != completions.num_rows:
            self._written = [_Written() for _ in range(completions.num_rows)]
            self._replied = np.zeros(completions.num_rows, np.int64)
        self._replied[rows] = 0
        for row in rows.tolist():
            self._written[row] = _Written()

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the score gained by the n-gram that the token ends, float32 (k,)."""
        rewards = np.zeros(len(rows), np.float32)
        where = index(rows, completions.num_rows)
        replied = completions.replied[where]
        # A turn that a stop string ended is known to be over by the answer to it.
        for row in rows[replied != self._replied[where]].tolist():
            self._written[row].last = ()
        self._replied[where] = replied
        is_end = completions.is_end[tokens].tolist()
        for k, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
            written = self._written[row]
            if is_end[k]:
                written.last = ()
                continue
            ngram = (*written.last, token)
            if len(ngram) < self.n:
                written.last = ngram
                continue
            written.last = ngram[1:]
            written.total += 1
            before = len(written.seen)
            written.seen.add(ngram)
            distinct = len(written.seen)
            if self.out_of == "budget":
                rewards[k] = (distinct - before) / (completions.max_new_tokens - self.n + 1)
            else:
                rewards[k] = distinct / written.total - before / max(1, written.total - 1)
        return rewards
