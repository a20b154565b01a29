"""What a reward pays for texts that are written already, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym import dynamics
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.combine import WeightedSum
from textgym.rewards.deferred import Owed
from textgym.tasks.base import Example
from textgym.tokenizer import Tokenizer


@dataclass(frozen=True)
class Played:
    """What one text earned.

    Attributes:
        pieces: The text that each token added, t items.
        rewards: What each token earned, t items.
        scores: What each reward paid in all, without its weight, by name.
        score: The sum of the scores, each times its weight.
    """

    pieces: list[str]
    rewards: list[float]
    scores: Mapping[str, float]
    score: float


def replay(
    reward: WeightedSum,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    token_ids: Sequence[Sequence[int]],
    max_new_tokens: int | None = None,
) -> list[Played]:
    """Write texts side by side as an environment would, and say what every token earned.

    Each is a single turn, and goes on where its prompt ends; chat templates are left out.

    Args:
        reward: The reward, of `make`.
        tokenizer: Decodes the tokens.
        examples: The prompt, reference and columns of each text.
        token_ids: The tokens of each text, an end-of-text token included if it has one. The last
            token of a text is the last of its episode. A text without tokens earns nothing.
        max_new_tokens: The budget of a text; the length of the longest if None.

    Returns:
        One result a text.

    Raises:
        ValueError: If a text is longer than the budget, or the numbers of examples and texts
            differ.
        RewardError: If the reward failed.
    """
    if len(examples) != len(token_ids):
        raise ValueError(f"{len(examples)} examples and {len(token_ids)} texts; give one for each.")
    lengths = np.array([len(ids) for ids in token_ids], np.int64)
    longest = int(lengths.max(initial=0))
    budget = max(longest, 1) if max_new_tokens is None else max_new_tokens
    if longest > budget:
        raise ValueError(f"a text has {longest} tokens, and max_new_tokens is {budget}; raise it.")
    prompts = [np.array(tokenizer.encode(example.prompt), np.int64) for example in examples]
    context_length = budget + max(map(len, prompts), default=0)
    contexts = dynamics.empty(len(examples), context_length, tokenizer.pad_token_id)
    completions = Completions(contexts, tokenizer, budget)
    paid: list[list[float]] = [[] for _ in examples]
    (rows,) = np.nonzero(lengths)
    if len(rows):
        dynamics.begin(contexts, rows, [prompts[row] for row in rows.tolist()])
        completions.begin(rows, [examples[row] for row in rows.tolist()])
        reward.start(rows, completions)
    owed: list[tuple[Rows, Owed[NDArray[np.float64]]]] = []
    for place in range(longest):
        (rows,) = np.nonzero(lengths > place)
        tokens = np.array([token_ids[row][place] for row in rows.tolist()], np.int64)
        dynamics.append(contexts, rows, tokens)
        completions.ended[rows] = lengths[rows] == place + 1
        owed.append((rows, reward.submit(rows, tokens, completions)))
        if not reward.is_remote:  # which is asked about all places before the first is waited for
            _pay(owed, paid)
    _pay(owed, paid)
    scores = reward.scores
    return [
        Played(
            completions.pieces(row) if lengths[row] else [],
            paid[row],
            {name: float(of[row]) for name, of in scores.items()} if lengths[row] else {},
            float(reward.total(np.array([row]))[0]) if lengths[row] else 0.0,
        )
        for row in range(len(examples))
    ]


def _pay(owed: list[tuple[Rows, Owed[NDArray[np.float64]]]], paid: list[list[float]]) -> None:
    """Take what is owed to rows, in order."""
    for rows, amounts in owed:
        for row, amount in zip(rows.tolist(), amounts.settle().tolist(), strict=True):
            paid[row].append(amount)
    owed.clear()
