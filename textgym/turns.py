"""Tasks of several turns: the other side answers when the model ends its turn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym import dynamics
from textgym.completion import Completions
from textgym.dynamics import Contexts, Rows
from textgym.prompt_format import PromptFormat
from textgym.tasks.base import Interaction


class Reply(NamedTuple):
    """What the other side says, as text and as the tokens that go into the context."""

    text: str
    token_ids: list[int]


class Turns:
    """Lets the model and the other side of a task take turns, in a batch of rows.

    Args:
        interaction: The other side.
        form: Makes tokens of what it says.
        contexts: The batch's tokens.
        completions: The batch's texts.
    """

    def __init__(
        self,
        interaction: Interaction,
        form: PromptFormat,
        contexts: Contexts,
        completions: Completions,
    ) -> None:
        self._interaction = interaction
        self._form = form
        self._contexts = contexts
        self._completions = completions

    def take(
        self, rows: Rows, over: NDArray[np.bool_], spent: NDArray[np.bool_]
    ) -> dict[int, Reply]:
        """Ask the other side what it says, where the model's turn is over.

        Args:
            rows: Rows that took a step, int (k,).
            over: Where the model ended its turn, bool (k,); False afterwards where there is an
                answer, which means that the episode goes on.
            spent: Where there is no room for more, bool (k,); True afterwards where there is none
                for the answer.

        Returns:
            The answers, by row, to be added by `add`.
        """
        answers = {}
        for k in over.nonzero()[0].tolist():
            row = int(rows[k])
            completions = self._completions
            turn_ids, turn = completions.turn_ids(row).tolist(), completions.turn_text(row)
            turns = completions.end_turn(row)
            if len(turns) >= self._interaction.max_turns:
                continue
            text = self._interaction.reply(completions.examples[row], turns)
            if text is None:
                continue
            if not isinstance(text, str):
                raise TypeError(
                    f"reply(example, turns) of the task gave {text!r} ({type(text).__name__}) "
                    f"after {turns!r}; expected a string, or None if the episode is over."
                )
            over[k] = False
            token_ids = self._form.encode_reply(text, turn_ids, turn)
            if len(token_ids) < dynamics.room(self._contexts, row):
                answers[row] = Reply(text, token_ids)
            else:
                spent[k] = True
        return answers

    def add(self, row: int, reply: Reply) -> None:
        """Write an answer into the context of a row, whose next turn begins."""
        dynamics.extend(self._contexts, row, reply.token_ids)
        self._completions.add_reply(row, reply.text, len(reply.token_ids))


def room_for_replies(interaction: Interaction, form: PromptFormat) -> int:
    """The most tokens that the other side may say in an episode.

    Raises:
        TypeError: If the other side does not say how often or how much it answers.
    """
    turns, longest_reply = interaction.max_turns, interaction.longest_reply
    if not isinstance(turns, int) or turns < 1 or not isinstance(longest_reply, str):
        raise TypeError(
            "a task of several turns has max_turns, a whole number of at least 1, and "
            f"longest_reply, a string; got {turns!r} and {longest_reply!r}."
        )
    longest = form.encode_reply(interaction.longest_reply, [], "")
    return (interaction.max_turns - 1) * len(longest)
