"""Text whose generated tokens are coloured by the reward that each of them earned.

One view in three forms: in a terminal, as a picture for videos, and as a page for a report. Rich
and Pillow are imported where they are used: an environment that is never rendered does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgym.rendering.page import to_html
from textgym.rendering.picture import to_rgb_array
from textgym.rendering.terminal import LiveText, to_ansi, to_rich, token_text
from textgym.rendering.transcript import INK, NEUTRAL, Transcript, reward_color

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "INK",
    "NEUTRAL",
    "LiveText",
    "Transcript",
    "render",
    "reward_color",
    "to_ansi",
    "to_html",
    "to_rgb_array",
    "to_rich",
    "token_text",
]


def render(transcript: Transcript, mode: str) -> str | NDArray[np.uint8] | None:
    """A transcript as `Env.render` returns it.

    Args:
        transcript: What to show.
        mode: `"human"` prints it to the terminal, `"ansi"` is `to_ansi`, `"rgb_array"` is
            `to_rgb_array`.

    Raises:
        ValueError: If there is no such mode.
    """
    if mode == "human":
        from rich import print as rich_print

        rich_print(to_rich(transcript))
        return None
    if mode == "ansi":
        return to_ansi(transcript)
    if mode == "rgb_array":
        return to_rgb_array(transcript)
    raise ValueError(f"mode is {mode!r}; it is one of 'human', 'ansi' and 'rgb_array'.")
