"""One episode as it is shown, and the colours and words that all its forms share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Vermilion and teal differ in blue as well as in red and green, so that they stay apart
# under every common colour blindness, and they are equally light, so that neither seems stronger.
NEGATIVE: Color = (244, 128, 72)
NEUTRAL: Color = (235, 235, 232)
POSITIVE: Color = (38, 181, 168)
INK: Color = (26, 28, 30)

NEWLINE_MARK = "⏎"
SILENT_MARK = "∎"
REPLY_MARK = "›"  # noqa: RUF001  # before what others said
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
        replies: What others said between the tokens: after how many of them, and the text.

    Raises:
        ValueError: If `pieces` and `rewards` differ in length, or a reward is not finite.
    """

    prompt: str
    pieces: Sequence[str]
    rewards: Sequence[float]
    replies: Sequence[tuple[int, str]] = ()

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


def shown_tokens(transcript: Transcript) -> Iterator[tuple[str, float | None]]:
    """The tokens that are seen, as they are seen, with their rewards; None for what others said."""
    replies = dict(transcript.replies)
    for place, (piece, reward) in enumerate(
        zip(transcript.pieces, transcript.rewards, strict=True)
    ):
        if place in replies:
            yield _reply(replies[place], transcript.pieces[:place]), None
        shown = printable(piece).replace("\n", f"{NEWLINE_MARK}\n")
        if not shown and reward:
            shown = SILENT_MARK
        if shown:
            yield shown, float(reward)
    if len(transcript.pieces) in replies:
        yield _reply(replies[len(transcript.pieces)], transcript.pieces), None


def _reply(text: str, before: Sequence[str]) -> str:
    """What others said, on lines of its own."""
    line_end = "" if "".join(before[-1:]).endswith("\n") else "\n"
    return f"{line_end}{REPLY_MARK} {printable(text)}\n"


def printable(text: str) -> str:
    """The text, its control characters, overrides of direction and lone surrogates escaped."""
    return "".join(
        character
        if character.isprintable() or character in _ORDINARY
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def resolve_scale(scale: float | None, transcripts: Iterable[Transcript]) -> float:
    """The reward that gets the full colour: as given, or the largest that is shown."""
    if scale is None:
        rewards = (abs(reward) for transcript in transcripts for reward in transcript.rewards)
        return float(max(rewards, default=0.0)) or 1.0
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"scale is {scale}; it is the absolute reward that gets the full colour, a finite "
            "number above 0, or None for the largest absolute reward shown."
        )
    return scale


def legend_stops(scale: float) -> list[tuple[str, Color]]:
    """The ends and the middle of the scale, as labels with their colours."""
    return [(signed(reward), reward_color(reward, scale)) for reward in (-scale, 0.0, scale)]


def totals(transcript: Transcript) -> str:
    """The line below a text: what it earned in all, and its length."""
    total = signed(transcript.total_reward)
    return f"total reward {total} · {count(len(transcript.pieces), 'token')}"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it wants one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rounded(value: float, form: str) -> str:
    """A number as a format such as "+.3f" writes it, but never as a zero with a minus."""
    written = format(value, form)
    return format(0.0, form) if written == format(-0.0, form) else written


def signed(reward: float) -> str:
    """A reward with its sign, to four digits."""
    return f"{reward:+.4g}" if reward else "0"


def hex_color(color: Color) -> str:
    """A colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)
