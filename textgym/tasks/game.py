"""A game of several turns: the model of how tasks with an answering side are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np

from textgym.messages import Message, plain_turn
from textgym.tasks.base import Example, Task
from textgym.tasks.splitting import check_fractions, hold_out

if TYPE_CHECKING:
    from textgym.completion import Sample


def game(
    max_turns: int = 4,
    num_games: int = 1_000,
    highest: int = 20,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Guess a number; after each guess the other side says whether its number is higher or lower.

    An episode has several turns. The model guesses and ends its turn, with the end of a line or,
    a chat model, with its end-of-turn token; the answer ("Higher.", "Lower.", or what is wrong
    with the guess) is then put into the context. Its tokens are no actions and earn nothing. The
    episode is over when the number is found, after `max_turns` guesses, or when the budget of
    tokens, which is for all turns together, is spent.

        User: I think of a whole number from 3 to 11. Guess it.
        Assistant: 5
        User: Higher.
        Assistant: 9

    * **Prompt**: the range, such as "I think of a whole number from 3 to 11. Guess it."
    * **Reference**: the number.
    * **Reward**: `closeness`, paid at the end of each turn: a half times how near the best guess
      so far is, 0 to 1 in the range, and once the number is found 1 less 0.5 / `max_turns` for
      each guess before it. **Success**: the number is found.
    * **Splits**: games are drawn by `seed`; ranges that are tested on are not trained on.

    For a game of your own write two things: an object with `max_turns`, `longest_reply` and
    `reply(example, turns)`, which answers or says that it is over (`textgym.tasks.Interaction`),
    and a reward, which may look at `turns`.

    Args:
        max_turns: Most guesses in an episode.
        num_games: How many games there are; some may come twice.
        highest: The highest number that a range may reach; ranges begin at 1 or above and have
            at least 3 numbers.
        validation_fraction: Share of ranges to hold out for validation.
        test_fraction: Share of ranges to hold out for the test.
        seed: Draws the games, and chooses which are held out.

    Raises:
        ValueError: If a number is out of range.
    """
    for name, value, least in (("max_turns", max_turns, 1), ("num_games", num_games, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}.")
    if not isinstance(highest, int) or highest < 4:
        raise ValueError(f"highest is a whole number of at least 4, got {highest!r}.")
    fractions = {"validation": validation_fraction, "test": test_fraction}
    check_fractions(fractions)
    generator = np.random.default_rng(seed)
    numbers = range(1, highest + 1)
    ranges = [(a, b) for a, b in combinations_with_replacement(numbers, 2) if b - a >= 2]
    examples = []
    for _ in range(num_games):
        low, high = ranges[generator.integers(len(ranges))]
        examples.append(_example(low, high, int(generator.integers(low, high + 1))))
    return Task(
        "game",
        hold_out(examples, fractions, seed),
        reward={"closeness": Closeness(max_turns)},
        success=is_found,
        stop=("\n",),
        interaction=Guessing(max_turns, f"Give a number from {highest} to {highest}."),
    )


@dataclass(frozen=True)
class Guessing:
    """The side that knows the number; an `Interaction`.

    Attributes:
        max_turns: Most guesses in an episode.
        longest_reply: As long as any of its answers.
    """

    max_turns: int
    longest_reply: str

    def reply(self, example: Example, turns: Sequence[str]) -> str | None:
        """Higher or lower; None if the last guess is the number."""
        guess, number = _guess(turns[-1]), int(example.reference or 0)
        if guess is None:
            low, high = example.columns["low"], example.columns["high"]
            return f"Give a number from {low} to {high}."
        if guess == number:
            return None
        return "Higher." if guess < number else "Lower."


@dataclass(frozen=True)
class Closeness:
    """How near the guesses of a `game` came, and how soon the number was found, from 0 to 1.

    Args:
        max_turns: Most guesses in an episode.
    """

    max_turns: int

    def __call__(
        self, text: str, turns: Sequence[str], reference: str, low: int, high: int
    ) -> float:
        """The score of the turns that are over; see `game`."""
        number = int(reference)
        best = 0.0
        for turn, guess in enumerate(map(_guess, turns)):
            if guess == number:
                return 1.0 - 0.5 * turn / self.max_turns
            if guess is not None:
                best = max(best, 1.0 - abs(guess - number) / (high - low))
        return 0.5 * best


def is_found(sample: Sample) -> bool:
    """Whether one of the guesses is the number."""
    return any(_guess(turn) == int(sample.reference or 0) for turn in sample.turns)


def _example(low: int, high: int, number: int) -> Example:
    said = f"I think of a whole number from {low} to {high}. Guess it."
    return Example(
        f"User: {said}\n{plain_turn()}",
        str(number),
        {"low": low, "high": high},
        (Message("user", said),),
    )


def _guess(turn: str) -> int | None:
    """The first number in what the model said."""
    found = re.search(r"\d{1,9}", turn)
    return None if found is None else int(found[0])
