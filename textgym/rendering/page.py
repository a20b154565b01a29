"""Coloured tokens as a page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from textgym.rendering.transcript import (
    Transcript,
    count,
    hex_color,
    legend_stops,
    printable,
    resolve_scale,
    reward_color,
    shown_tokens,
    signed,
    totals,
)


def to_html(
    transcripts: Sequence[Transcript],
    *,
    title: str = "Generated text, coloured by reward",
    labels: Sequence[str] | None = None,
    scale: float | None = None,
) -> str:
    """Transcripts as one page that needs no other file; pointing at a token shows its reward.

    Args:
        transcripts: What to show, in this order.
        title: The heading of the page.
        labels: The heading of each transcript; numbered if None.
        scale: The absolute reward that gets the full colour in every transcript; the largest of
            them all if None.

    Returns:
        The page, with everything that comes from a transcript escaped.

    Raises:
        ValueError: If `scale` is not a finite number above 0, or there is not one label for each
            transcript.
    """
    if labels is None:
        labels = [f"Episode {number}" for number in range(1, len(transcripts) + 1)]
    elif len(labels) != len(transcripts):
        raise ValueError(f"{len(labels)} labels for {len(transcripts)} transcripts; give one each.")
    scale = resolve_scale(scale, transcripts)
    tokens = sum(len(transcript.pieces) for transcript in transcripts)
    counts = [count(len(transcripts), "episode"), count(tokens, "token")]
    if transcripts:
        mean = sum(transcript.total_reward for transcript in transcripts) / len(transcripts)
        counts.append(f"mean total reward {signed(mean)}")
    stops = legend_stops(scale)
    return _PAGE.format(
        title=escape(printable(title)),
        style=_STYLE % {"gradient": ", ".join(hex_color(color) for _, color in stops)},
        summary=" · ".join(counts),
        legend="".join(f"<span>{label}</span>" for label, _ in stops),
        episodes="\n".join(
            _episode(label, transcript, scale)
            for label, transcript in zip(labels, transcripts, strict=True)
        ),
    )


def _episode(label: str, transcript: Transcript, scale: float) -> str:
    tokens = "".join(_token(shown, reward, scale) for shown, reward in shown_tokens(transcript))
    # HTML swallows a newline that comes first in a pre; the prompt's own tag keeps it from that.
    return (
        f"<article><h2>{escape(printable(label))}<small>{totals(transcript)}</small></h2>\n"
        f'<pre><span class="prompt">{escape(printable(transcript.prompt))}</span>{tokens}</pre>'
        "</article>"
    )


def _token(shown: str, reward: float | None, scale: float) -> str:
    if reward is None:  # what others said between the turns
        return f'<span class="prompt">{escape(shown)}</span>'
    return (
        f'<span class="token" style="background:{hex_color(reward_color(reward, scale))}" '
        f'data-reward="{signed(reward)}">{escape(shown)}</span>'
    )


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
