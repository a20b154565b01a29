"""Coloured tokens as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgym.rendering.transcript import (
    Transcript,
    legend_stops,
    printable,
    resolve_scale,
    reward_color,
    shown_tokens,
    totals,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_rgb_array(
    transcript: Transcript, *, scale: float | None = None, size: tuple[int, int] = (640, 360)
) -> NDArray[np.uint8]:
    """A transcript as a picture of constant size, with the totals and the scale below the text.

    Words wrap at the right edge. Of a text that is too long the end shows, after an ellipsis.
    Characters that no installed font has are drawn as boxes; for Chinese, Japanese and Korean
    install a font such as Noto Sans CJK. The terminal and the page leave that to the viewer.

    Args:
        transcript: What to show.
        scale: As in `to_rich`.
        size: Width and height of the picture in pixels.

    Returns:
        The picture, shape (height, width, 3), uint8, red, green and blue.

    Raises:
        ValueError: If `scale` is not a finite number above 0, or a side of `size` is below 1.
    """
    from textgym.rendering import canvas  # brings Pillow

    if min(size) < 1:
        raise ValueError(f"size is {size}; its width and height must be 1 pixel or more.")
    scale = resolve_scale(scale, [transcript])
    spans = [canvas.Span(printable(transcript.prompt), None)]
    spans += [
        canvas.Span(shown, None if reward is None else reward_color(reward, scale))
        for shown, reward in shown_tokens(transcript)
    ]
    return canvas.draw(spans, caption=totals(transcript), legend=legend_stops(scale), size=size)
