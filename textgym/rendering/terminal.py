"""Coloured tokens in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgym.rendering.transcript import (
    INK,
    Transcript,
    hex_color,
    printable,
    resolve_scale,
    reward_color,
    shown_tokens,
    totals,
)

# rich is imported where it is used: an environment that is never rendered does not pay for it.
if TYPE_CHECKING:
    from rich.text import Text


class LiveText:
    """Prints an episode as it is written: the prompt, then each token when it comes."""

    def __init__(self) -> None:
        self._printed: int | None = None
        self._replies = 0
        self._open = False

    def begin(self) -> None:
        """Another episode begins: what follows starts with its prompt, on a line of its own."""
        if self._open:
            print()
        self._printed, self._replies, self._open = None, 0, False

    def show(self, transcript: Transcript, *, ended: bool) -> None:
        """Print what is new; once the episode has ended, the totals below it.

        The colours are those of the largest reward so far, which is all that is known then.
        """
        from rich.console import Console
        from rich.text import Text

        console = Console(soft_wrap=True)
        total = len(transcript.pieces)
        if self._printed is None:
            console.print(Text(printable(transcript.prompt), style="dim"), end="")
            self._printed, self._open = 0, True
        if self._printed == total:
            return
        scale = resolve_scale(None, [transcript])
        new = slice(self._printed, total)
        new_replies = transcript.replies[self._replies :]
        self._replies = len(transcript.replies)
        replies = [(at - new.start, text) for at, text in new_replies]
        fresh = Transcript("", transcript.pieces[new], transcript.rewards[new], replies)
        console.print(token_text(fresh, scale=scale), end="")
        self._printed = total
        if ended:
            self._open = False
            console.print(Text(f"\n{totals(transcript)}\n", style="dim"))


def to_rich(transcript: Transcript, *, scale: float | None = None) -> Text:
    r"""A transcript for `rich.print`: dimmed prompt, coloured tokens, and a line with the totals.

    A newline in a token shows as `⏎` before the break, a token without text that earned a reward
    as `∎`, and control characters by their escapes (`\x1b`), which thus never reach the terminal.

    Args:
        transcript: What to show.
        scale: The absolute reward that gets the full colour; the largest of the transcript if None.

    Returns:
        The text; its `plain` is the prompt, the tokens, and the line with the totals.

    Raises:
        ValueError: If `scale` is not a finite number above 0.
    """
    from rich.text import Text

    scale = resolve_scale(scale, [transcript])
    text = Text(overflow="fold").append(printable(transcript.prompt), style="dim")
    text.append_text(token_text(transcript, scale=scale))
    return text.append(f"\n{totals(transcript)} · full colour at ±{scale:.4g}", style="dim")


def token_text(transcript: Transcript, *, scale: float | None = None) -> Text:
    """Only the coloured tokens of `to_rich`, for a cell of a table."""
    from rich.text import Text

    scale = resolve_scale(scale, [transcript])
    text = Text(overflow="fold")
    for shown, reward in shown_tokens(transcript):
        style = "dim"
        if reward is not None:
            style = f"{hex_color(INK)} on {hex_color(reward_color(reward, scale))}"
        text.append(shown, style=style)
    return text


def to_ansi(transcript: Transcript, *, scale: float | None = None, width: int | None = None) -> str:
    """A transcript as text with 24-bit colour codes, whatever the terminal or the environment say.

    Args:
        transcript: What to show.
        scale: As in `to_rich`.
        width: Columns at which words wrap; None leaves the wrapping to the terminal.

    Returns:
        The text, its only escape sequences being those that set colours; no newline at its end.

    Raises:
        ValueError: If `scale` is not a finite number above 0, or `width` is below 1.
    """
    from io import StringIO

    from rich.console import Console

    if width is not None and width < 1:
        raise ValueError(f"width is {width}; it must be 1 column or more, or None not to wrap.")
    # Everything that a console would otherwise read from the environment is said here.
    console = Console(
        file=StringIO(),
        width=width,
        color_system="truecolor",
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
        no_color=False,
    )
    with console.capture() as capture:
        console.print(to_rich(transcript, scale=scale), end="", soft_wrap=width is None)
    return capture.get()
