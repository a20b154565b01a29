"""What commands say of an environment before they show what it gave."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text


def rewards_in_words(weights: Mapping[str, float]) -> str:
    """Rewards by name, each with its weight unless that is 1: `sentiment + 0.1 length`."""
    return " + ".join(name if w == 1 else f"{w:g} {name}" for name, w in weights.items())


def prompts_in_words(is_chat: bool) -> str:
    """How prompts are put to a model."""
    return "chat messages, by the model's template" if is_chat else "plain text"


def say(console: Console, text: str | Text, style: str = "", *, whole: str = "") -> None:
    """Print a text as it is: wrapped between words on a terminal, and elsewhere in whole lines.

    Args:
        console: Where to.
        text: The text.
        style: As rich has it.
        whole: The end of the text, a path or a command that is to be copied. It is never broken,
            and stands in a line of its own where there is no room for it.
    """
    line = Text.assemble(text, f" {whole}" if whole else "", style=style)
    if not console.is_terminal or _longest(line) <= console.width:
        console.print(line, soft_wrap=True)
        return
    console.print(Text.assemble(text, style=style))
    if whole:
        console.print(Text(whole, style), soft_wrap=True)


def _longest(text: Text) -> int:
    return max(map(cell_len, text.plain.splitlines()), default=0)
