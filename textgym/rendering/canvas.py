"""Spans of text with coloured backgrounds, laid out and drawn on a canvas of constant size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from textgym.rendering.transcript import INK, Color

_PAPER: Color = (250, 249, 246)
_MUTED: Color = (107, 111, 116)
_RULE: Color = (226, 224, 218)

# Pixels.
_MARGIN = 24
_TEXT_SIZE = 17
_LINE_HEIGHT = 28
_ASCENT, _DESCENT = 17, 6  # of a token's box, from the baseline
_SMALL_SIZE = 13
_FOOTER_HEIGHT = 48
_LEGEND_WIDTH, _LEGEND_HEIGHT = 180, 20
# A space at the end of a line may reach this far into the margin, so that none begins a line.
_OVERHANG = 12

# The widths of what no font is asked for: the marks are drawn as shapes.
_WIDTHS = {"\n": 0.0, "⏎": 17.0, "∎": 11.0}
_ATOM = re.compile(r"\n|[⏎∎]|[^\S\n]+|[^\s⏎∎]+")

# The built-in font knows little beyond ASCII. These, where the system has them, add the accents,
# the other alphabets, and Chinese, Japanese and Korean.
_SYSTEM_FONTS = (
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
)
_NEVER_A_CHARACTER = "\U0010ffff"


class Span(NamedTuple):
    """A stretch of text on one background; `None` is the paper, and makes the text muted."""

    text: str
    background: Color | None


class _Atom(NamedTuple):
    """What is placed as one: a newline, a mark, or the spaces or a part of a word of one span."""

    text: str
    span: int


class Run(NamedTuple):
    """Text of one span in its place on a line; `x` is from the line's left, in pixels."""

    text: str
    span: int
    x: float
    width: float


def draw(
    spans: Sequence[Span],
    *,
    caption: str,
    legend: Sequence[tuple[str, Color]],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    r"""Draws the spans one after the other; where they do not fit, an ellipsis and their end.

    Args:
        spans: Text to lay out, with `"\n"` for a new line and `⏎` and `∎` drawn as shapes.
        caption: What the footer says, at its left.
        legend: The stops of a gradient with their labels, for the right of the footer; left out
            of a canvas that is too narrow for it.
        size: Width and height in pixels, each 1 or more.

    Returns:
        The picture, shape (height, width, 3), uint8.
    """
    width, height = size
    canvas = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(canvas)
    lines = layout(spans, width - 2 * _MARGIN)
    rows = max(1, (height - _MARGIN - _FOOTER_HEIGHT) // _LINE_HEIGHT)
    overflows = len(lines) > rows
    baseline = _MARGIN + _ASCENT
    if overflows:
        pen.text((_MARGIN, baseline), "…", _MUTED, _faces()[0], anchor="ls")
        lines = lines[len(lines) - rows + 1 :]
        baseline += _LINE_HEIGHT
    for number, line in enumerate(lines):
        _draw_line(pen, line, spans, baseline + number * _LINE_HEIGHT)
    _draw_footer(pen, caption, legend, size)
    return np.array(canvas)


def layout(spans: Sequence[Span], width: float) -> list[list[Run]]:
    r"""Breaks spans into lines, greedily, between words.

    A word breaks only if it is longer than a line, however many spans it is made of. A space that
    a line would begin with is left at the end of the line before, or out where its span goes on.

    Args:
        spans: The text; `"\n"` ends a line.
        width: The width of a line in pixels; a line has one character at least.

    Returns:
        The runs of each line, from left to right.
    """
    lines: list[list[Run]] = [[]]
    x = 0.0

    def place(text: str, span: int, advance: float) -> None:
        nonlocal x
        lines[-1].append(Run(text, span, x, advance))
        x += advance

    for space, group in groupby(_atoms(spans), key=lambda atom: atom.text.isspace()):
        atoms = list(group)
        advances = [_advance(atom.text) for atom in atoms]
        limit = width + _OVERHANG if space else width
        if not space and x > 0 and x + sum(advances) > limit and sum(advances) <= limit:
            if _is_space_before(lines[-1], atoms[0]):
                lines[-1].pop()
            lines.append([])
            x = 0.0
        for atom, advance in zip(atoms, advances, strict=True):
            if atom.text == "\n":
                lines.append([])
                x = 0.0
            elif x + advance <= limit:
                place(atom.text, atom.span, advance)
            else:
                for character in atom.text:
                    if x > 0 and x + _advance(character) > limit:
                        lines.append([])
                        x = 0.0
                    place(character, atom.span, _advance(character))
    return lines


def _is_space_before(line: Sequence[Run], atom: _Atom) -> bool:
    """Whether the line ends in the space of a token like `" word"`, whose word comes next."""
    return bool(line) and line[-1].span == atom.span and line[-1].text.isspace()


def _atoms(spans: Sequence[Span]) -> Iterator[_Atom]:
    for index, span in enumerate(spans):
        for match in _ATOM.finditer(span.text):
            yield _Atom(match.group(), index)


def _draw_line(
    pen: ImageDraw.ImageDraw, line: Sequence[Run], spans: Sequence[Span], baseline: int
) -> None:
    for index, group in groupby(line, key=lambda run: run.span):
        runs = list(group)
        background = spans[index].background
        if background is not None:
            left = _MARGIN + round(runs[0].x)
            # One pixel of paper on the right parts a token from the next.
            right = max(left, _MARGIN + round(runs[-1].x + runs[-1].width) - 2)
            box = (left, baseline - _ASCENT, right, baseline + _DESCENT - 1)
            pen.rounded_rectangle(box, radius=2, fill=background)
        color = _MUTED if background is None else INK
        for run in runs:
            _draw_run(pen, run, baseline, color)


def _draw_run(pen: ImageDraw.ImageDraw, run: Run, baseline: int, color: Color) -> None:
    left = _MARGIN + run.x
    if run.text == "⏎":
        stem, tip, middle = left + run.width - 5, left + 3, baseline - 3
        pen.line([(stem, baseline - 10), (stem, middle), (tip, middle)], color, width=1)
        pen.line([(tip + 3, middle - 3), (tip, middle), (tip + 3, middle + 3)], color, width=1)
    elif run.text == "∎":
        pen.rectangle((left + 2, baseline - 9, left + run.width - 4, baseline - 1), fill=color)
    else:
        pen.text((left, baseline), run.text, color, _face(run.text), anchor="ls")


def _draw_footer(
    pen: ImageDraw.ImageDraw,
    caption: str,
    legend: Sequence[tuple[str, Color]],
    size: tuple[int, int],
) -> None:
    width, height = size
    font = ImageFont.load_default(_SMALL_SIZE)
    middle = height - _FOOTER_HEIGHT // 2
    pen.line([(0, height - _FOOTER_HEIGHT), (width, height - _FOOTER_HEIGHT)], _RULE)
    pen.text((_MARGIN, middle), caption, _MUTED, font, anchor="lm")

    left, right = width - _MARGIN - _LEGEND_WIDTH, width - _MARGIN
    if left < 2 * _MARGIN + font.getlength(caption):
        return
    top, bottom = middle - _LEGEND_HEIGHT // 2, middle + _LEGEND_HEIGHT // 2
    stops = np.linspace(left, right, len(legend))
    columns = np.arange(left, right)
    channels = np.array([color for _, color in legend]).T
    gradient = np.stack([np.interp(columns, stops, channel) for channel in channels], axis=1)
    for column, (red, green, blue) in zip(columns.tolist(), gradient.round().tolist(), strict=True):
        pen.line([(column, top), (column, bottom - 1)], (int(red), int(green), int(blue)))
    inset = np.linspace(8, -8, len(legend))
    for (label, _), stop, shift, anchor in zip(legend, stops, inset, "lmr", strict=True):
        pen.text((float(stop + shift), middle), label, INK, font, anchor=f"{anchor}m")


@lru_cache(maxsize=16384)
def _advance(text: str) -> float:
    """The width of an atom in pixels."""
    return _WIDTHS[text] if text in _WIDTHS else _face(text).getlength(text)


@lru_cache(maxsize=16384)
def _face(text: str) -> ImageFont.FreeTypeFont:
    """The first of the faces that can show the most of the text."""
    return max(_faces(), key=lambda face: sum(_has_glyph(face, char) for char in text))


@lru_cache(maxsize=16384)
def _has_glyph(face: ImageFont.FreeTypeFont, character: str) -> bool:
    # Pillow does not say which glyphs a font has, but every missing one is the same picture.
    return _bitmap(face, character) != _bitmap(face, _NEVER_A_CHARACTER)


def _bitmap(face: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = face.getmask(character)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _faces() -> tuple[ImageFont.FreeTypeFont, ...]:
    """The built-in font, then those of the system's that can be found."""
    builtin = ImageFont.load_default(_TEXT_SIZE)
    if not isinstance(builtin, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "This Pillow was built without FreeType, so that it has no scalable font. Install "
            "Pillow from its wheels (pip install --force-reinstall pillow)."
        )
    faces = [builtin]
    for name in _SYSTEM_FONTS:
        try:
            # As the built-in font is laid out: the other engine raises on some strings.
            engine = ImageFont.Layout.BASIC
            faces.append(ImageFont.truetype(name, _TEXT_SIZE, layout_engine=engine))
        except OSError:  # The system has no such font.
            continue
    return tuple(faces)
