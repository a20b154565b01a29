"""What commands say fits a terminal, and can be copied."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from agents.wording import say
from textgym.rendering.transcript import count, rounded

COMMAND = "textgym train --resume 'a directory/with spaces and a long name'"
WORDS = "Saved after 64 tokens, which is said in some more words than there is room for. Go on:"


def said(width: int, *, is_terminal: bool, text: str | Text = WORDS, whole: str = COMMAND) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    say(console, text, whole=whole)
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 33, 80])
def test_words_are_whole_on_a_terminal_and_commands_have_a_line_of_their_own(width: int) -> None:
    *lines, command = said(width, is_terminal=True).splitlines()
    assert command == COMMAND
    assert " ".join(line.rstrip() for line in lines) == WORDS
    assert max(map(len, lines)) <= width
    assert len(lines) > 1


def test_what_fits_and_what_is_piped_is_one_line() -> None:
    assert said(200, is_terminal=True) == said(20, is_terminal=False) == f"{WORDS} {COMMAND}\n"


def test_brackets_are_no_markup_and_styles_of_parts_stay() -> None:
    assert said(80, is_terminal=False, text="[bold]1[/]", whole="") == "[bold]1[/]\n"
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    say(console, Text.assemble("a ", ("b", "bold")))
    assert "\x1b[1mb\x1b[0m" in console.file.getvalue()  # type: ignore[attr-defined]


def test_no_zero_has_a_minus() -> None:
    assert [rounded(n, "+.3f") for n in (-0.0004, -0.0, -0.0006)] == ["+0.000", "+0.000", "-0.001"]
    assert rounded(-0.001, ".0%") == "0%"
    assert rounded(float("nan"), ".2f") == "nan"


def test_one_is_no_plural() -> None:
    assert [count(n, "text") for n in (0, 1, 2048)] == ["0 texts", "1 text", "2,048 texts"]
