"""Text whose generated tokens are coloured by the reward that each of them earned.

Three forms of one view: ANSI for a terminal, an RGB array for videos, and HTML for a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

# rich, Pillow and numpy are imported where they are used: an environment that is never rendered
# does not pay for them.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.text import Text

    from textgym.picture import Color

__all__ = ["Transcript", "render", "reward_color", "to_ansi", "to_html", "to_rgb_array", "to_rich", "token_text"]

# Vermilion and teal differ in blue as well as in red and green, so that they stay apart
# under every common colour blindness, and they are equally light, so that neither seems stronger.
NEGATIVE: Color = (244, 128, 72)
NEUTRAL: Color = (235, 235, 232)
POSITIVE: Color = (38, 181, 168)
INK: Color = (26, 28, 30)

NEWLINE_MARK = "⏎"
SILENT_MARK = "∎"
# Not printable to Python, yet ordinary in text: the spaces of French and Chinese typography, and
# the joiners of Persian words and of emoji.
_ORDINARY = "\n\u00a0\u202f\u3000\u200c\u200d"


@dataclass(frozen=True)
class Transcript:
    """One episode, as it is shown: the prompt, then each generated token with its reward.

    Attributes:
        prompt: The text before the first generated token.
        pieces: The text of each generated token; `""` for one that shows none, which is one that
            only begins a multi-byte character, or a special token.
        rewards: The reward of each token, as many as `pieces`.

    Raises:
        ValueError: If `pieces` and `rewards` differ in length, or a reward is not finite.
    """

    prompt: str
    pieces: Sequence[str]
    rewards: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.rewards):
            raise ValueError(
                f"{len(self.pieces)} pieces and {len(self.rewards)} rewards: a transcript has one "
                'reward for each token. Give "" as the piece of a token that shows no text.'
            )
        for position, reward in enumerate(self.rewards):
            if not math.isfinite(reward):
                raise ValueError(
                    f"The reward of token {position} is {reward}; a colour needs a finite number."
                )

    @property
    def total_reward(self) -> float:
        """The sum of the rewards; what is left of rewards that cancel, to rounding, is 0."""
        total = float(sum(self.rewards))
        # Immediate rewards telescope: a score gained and lost again leaves 1e-8, not 0, in float32.
        return total if abs(total) > 1e-6 * float(sum(map(abs, self.rewards))) else 0.0


def reward_color(reward: float, scale: float) -> Color:
    """The background colour of a token: grey at 0, teal above it, vermilion below.

    Each channel is linear in the reward (in sRGB, as gradients in CSS are), and constant beyond
    `scale`, so that `reward_color(r, s)` and `reward_color(-r, s)` are equally far from grey.
    Dark text on it has a contrast of 6 : 1 or more.

    Args:
        reward: Any finite number.
        scale: The absolute reward that gets the full colour, above 0.

    Returns:
        Red, green and blue, in 0..255.
    """
    share = min(abs(reward) / scale, 1.0)
    red, green, blue = (
        round(neutral + share * (end - neutral))
        for neutral, end in zip(NEUTRAL, POSITIVE if reward > 0 else NEGATIVE, strict=True)
    )
    return red, green, blue


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

    scale = _resolve_scale(scale, [transcript])
    text = Text(overflow="fold").append(_printable(transcript.prompt), style="dim")
    text.append_text(token_text(transcript, scale=scale))
    return text.append(f"\n{_totals(transcript)} · full colour at ±{scale:.4g}", style="dim")


def token_text(transcript: Transcript, *, scale: float | None = None) -> Text:
    """Only the coloured tokens of `to_rich`, for a cell of a table."""
    from rich.text import Text

    scale = _resolve_scale(scale, [transcript])
    text = Text(overflow="fold")
    for shown, reward in _shown_tokens(transcript):
        text.append(shown, style=f"{_hex(INK)} on {_hex(reward_color(reward, scale))}")
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


def to_rgb_array(
    transcript: Transcript, *, scale: float | None = None, size: tuple[int, int] = (640, 360)
) -> NDArray[np.uint8]:
    """A transcript as a picture of constant size, with the totals and the scale below the text.

    Words wrap at the right edge. Of a text that is too long the end shows, after an ellipsis.

    Args:
        transcript: What to show.
        scale: As in `to_rich`.
        size: Width and height of the picture in pixels.

    Returns:
        The picture, shape (height, width, 3), uint8, red, green and blue.

    Raises:
        ValueError: If `scale` is not a finite number above 0, or a side of `size` is below 1.
    """
    from textgym import picture

    if min(size) < 1:
        raise ValueError(f"size is {size}; its width and height must be 1 pixel or more.")
    scale = _resolve_scale(scale, [transcript])
    spans = [picture.Span(_printable(transcript.prompt), None)]
    spans += [
        picture.Span(shown, reward_color(reward, scale))
        for shown, reward in _shown_tokens(transcript)
    ]
    return picture.draw(spans, caption=_totals(transcript), legend=_legend(scale), size=size)


def to_html(
    transcripts: Sequence[Transcript],
    *,
    title: str = "Generated text, coloured by reward",
    scale: float | None = None,
) -> str:
    """Transcripts as one page that needs no other file; pointing at a token shows its reward.

    Args:
        transcripts: What to show, in this order.
        title: The heading of the page.
        scale: The absolute reward that gets the full colour in every transcript; the largest of
            them all if None.

    Returns:
        The page, with everything that comes from a transcript escaped.

    Raises:
        ValueError: If `scale` is not a finite number above 0.
    """
    scale = _resolve_scale(scale, transcripts)
    tokens = sum(len(transcript.pieces) for transcript in transcripts)
    counts = [_count(len(transcripts), "episode"), _count(tokens, "token")]
    if transcripts:
        mean = sum(transcript.total_reward for transcript in transcripts) / len(transcripts)
        counts.append(f"mean total reward {_signed(mean)}")
    stops = _legend(scale)
    return _PAGE.format(
        title=escape(_printable(title)),
        style=_STYLE % {"gradient": ", ".join(_hex(color) for _, color in stops)},
        summary=" · ".join(counts),
        legend="".join(f"<span>{label}</span>" for label, _ in stops),
        episodes="\n".join(
            _episode(number, transcript, scale)
            for number, transcript in enumerate(transcripts, start=1)
        ),
    )


def _episode(number: int, transcript: Transcript, scale: float) -> str:
    tokens = "".join(
        f'<span class="token" style="background:{_hex(reward_color(reward, scale))}" '
        f'data-reward="{_signed(reward)}">{escape(shown)}</span>'
        for shown, reward in _shown_tokens(transcript)
    )
    # HTML swallows a newline that comes first in a pre; the prompt's own tag keeps it from that.
    return (
        f"<article><h2>Episode {number}<small>{_totals(transcript)}</small></h2>\n"
        f'<pre><span class="prompt">{escape(_printable(transcript.prompt))}</span>{tokens}</pre>'
        "</article>"
    )


def _shown_tokens(transcript: Transcript) -> Iterator[tuple[str, float]]:
    """The tokens that are seen, as they are seen, with their rewards."""
    for piece, reward in zip(transcript.pieces, transcript.rewards, strict=True):
        shown = _printable(piece).replace("\n", f"{NEWLINE_MARK}\n")
        if not shown and reward:
            shown = SILENT_MARK
        if shown:
            yield shown, float(reward)


def _printable(text: str) -> str:
    """The text, its control characters, overrides of direction and lone surrogates escaped."""
    return "".join(
        character
        if character.isprintable() or character in _ORDINARY
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _resolve_scale(scale: float | None, transcripts: Iterable[Transcript]) -> float:
    if scale is None:
        rewards = (abs(reward) for transcript in transcripts for reward in transcript.rewards)
        return float(max(rewards, default=0.0)) or 1.0
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"scale is {scale}; it is the absolute reward that gets the full colour, a finite "
            "number above 0, or None for the largest absolute reward shown."
        )
    return scale


def _legend(scale: float) -> list[tuple[str, Color]]:
    return [(_signed(reward), reward_color(reward, scale)) for reward in (-scale, 0.0, scale)]


def _totals(transcript: Transcript) -> str:
    total = _signed(transcript.total_reward)
    return f"total reward {total} · {_count(len(transcript.pieces), 'token')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _signed(reward: float) -> str:
    return f"{reward:+.4g}" if reward else "0"


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


# The policy keeps the page from loading anything at all, should an escape ever be missed.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{summary}</p>
<div class="legend">{legend}</div>
</header>
{episodes}
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light; }
body { max-width: 50rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; background: #faf9f6;
  color: #1a1c1e; font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; }
header { margin-bottom: 2rem; }
header p { margin: .25rem 0 1rem; color: #5f6368; }
.legend { display: flex; justify-content: space-between; width: 18rem; padding: .1rem .6rem;
  border-radius: .3rem; background: linear-gradient(to right, %(gradient)s);
  font-size: .8rem; font-variant-numeric: tabular-nums; }
.legend span { flex: 1; text-align: center; }
.legend span:first-child { text-align: left; }
.legend span:last-child { text-align: right; }
article { margin-top: 1rem; padding: .9rem 1.25rem 1.1rem; background: #fff;
  border: 1px solid #e6e4df; border-radius: .5rem; }
h2 { display: flex; justify-content: space-between; margin: 0 0 .6rem; font-size: .85rem; }
h2 small { color: #5f6368; font-size: inherit; font-weight: normal; }
pre { margin: 0; font: 1rem/1.75 system-ui, sans-serif; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.prompt { color: #6b6f74; }
.token { position: relative; padding: .12em 0; border-radius: .18em;
  box-shadow: inset -1px 0 #fff; }
.token:hover { z-index: 1; outline: 2px solid #1a1c1e; }
.token:hover::after { content: attr(data-reward); position: absolute; left: 0; bottom: 110%%;
  padding: .1rem .45rem; border-radius: .3rem; background: #1a1c1e; color: #fff;
  font-size: .8rem; line-height: 1.4; white-space: nowrap; pointer-events: none; }
"""
