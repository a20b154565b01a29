import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.rendering import (
    INK,
    NEUTRAL,
    LiveText,
    Transcript,
    canvas,
    render,
    reward_color,
    to_ansi,
    to_html,
    to_rgb_array,
    to_rich,
)

COLOR_CODE = re.compile(r"\x1b\[[\d;]*m")
FOOTER_HEIGHT = 48

rewards = st.floats(-1e6, 1e6, allow_nan=False)
any_text = st.text(
    st.one_of(st.characters(exclude_categories=[]), st.sampled_from("a b\n\t\x1b\x9b<&'\"⏎∎…é中")),
    max_size=12,
)


def transcripts(text=any_text):
    return st.builds(
        lambda prompt, tokens: Transcript(prompt, [t for t, _ in tokens], [r for _, r in tokens]),
        text,
        st.lists(st.tuples(text, rewards), max_size=12),
    )


def luminance(color):
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    return linear(color) @ [0.2126, 0.7152, 0.0722]


def linear(color):
    channels = np.array(color) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def shows(image, color):
    """Whether the color is somewhere above the footer, which has a legend of all colors."""
    return bool((image[:-FOOTER_HEIGHT] == color).all(axis=-1).any())


def test_transcript_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="2 pieces and 1 rewards"):
        Transcript("p", ["a", "b"], [1.0])


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), float("-inf")])
def test_transcript_refuses_rewards_that_are_not_finite(reward):
    with pytest.raises(ValueError, match="token 1"):
        Transcript("p", ["a", "b"], [0.0, reward])


def test_total_reward_is_the_sum_without_the_rounding_of_rewards_that_cancel():
    assert Transcript("", ["a", "b"], [1.5, -0.25]).total_reward == 1.25
    gained_and_lost = [float(np.float32(r)) for r in (0.1, 0.2, -0.3)]
    assert sum(gained_and_lost) != 0.0
    assert Transcript("", ["a", "b", "c"], gained_and_lost).total_reward == 0.0


@given(st.floats(1e-3, 1e3), st.floats(0, 2), st.floats(0, 2))
def test_color_is_symmetric_and_monotone(scale, one, other):
    def distances(share):
        return np.abs(np.array(reward_color(share * scale, scale)) - NEUTRAL)

    def is_farther(far, near):
        return bool((distances(far) >= distances(near)).all())

    low, high = sorted((one, other))
    assert is_farther(high, low)
    assert is_farther(-high, -low)
    # Neither side seems stronger than the other.
    brightness = [luminance(reward_color(sign * one * scale, scale)) for sign in (1, -1)]
    assert brightness[0] == pytest.approx(brightness[1], abs=0.03)


def test_color_is_neutral_at_zero_and_constant_beyond_the_scale():
    assert reward_color(0.0, 1.0) == reward_color(-0.0, 1.0) == NEUTRAL
    assert reward_color(7.0, 1.0) == reward_color(1.0, 1.0)
    assert reward_color(-7.0, 1.0) == reward_color(-1.0, 1.0)


def test_the_sign_of_a_reward_shows_in_the_hue():
    red, green, _ = reward_color(1.0, 1.0)
    assert green > red
    red, green, _ = reward_color(-1.0, 1.0)
    assert red > green


@given(st.floats(-1, 1))
def test_dark_text_is_readable_on_every_color(reward):
    contrast = (luminance(reward_color(reward, 1.0)) + 0.05) / (luminance(INK) + 0.05)
    assert contrast >= 6


# Simulation at full severity, on linear RGB: Machado, Oliveira and Fernandes (2009), "A
# Physiologically-based Model for Simulation of Color Vision Deficiency".
@pytest.mark.parametrize(
    "simulation",
    [
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ],
    ids=["protanopia", "deuteranopia"],
)
def test_gain_and_loss_differ_to_colour_blind_eyes(simulation):
    gain, loss = (np.array(simulation) @ linear(reward_color(r, 1.0)) for r in (1.0, -1.0))
    assert np.abs(gain - loss).max() > 0.2


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "render", [to_rich, to_ansi, to_rgb_array, lambda t, **k: to_html([t], **k)]
)
def test_a_scale_that_is_no_scale_is_refused(render, scale):
    with pytest.raises(ValueError, match="scale is"):
        render(Transcript("p", ["a"], [1.0]), scale=scale)


@given(transcripts(st.text(st.characters(categories=["L", "N", "P"]), min_size=1)))
def test_rich_text_of_printable_tokens_is_the_text_and_a_line(transcript):
    text, _, footer = to_rich(transcript).plain.rpartition("\n")
    assert text == transcript.prompt + "".join(transcript.pieces)
    assert f"{len(transcript.pieces)} token" in footer
    if not any(transcript.rewards):
        assert "total reward 0 " in footer


def test_render_serves_each_mode_of_an_environment(capsys):
    transcript = Transcript("prompt", [" token", "\x1b[2J"], [1.0, -1.0])
    assert render(transcript, "ansi") == to_ansi(transcript)
    assert np.array_equal(render(transcript, "rgb_array"), to_rgb_array(transcript))
    assert capsys.readouterr().out == ""
    assert render(transcript, "human") is None
    assert r"prompt token\x1b[2J" in COLOR_CODE.sub("", capsys.readouterr().out)
    with pytest.raises(ValueError, match="'html'"):
        render(transcript, "html")


def test_tokens_are_coloured_and_the_prompt_is_not():
    text = to_rich(Transcript("ab", ["cd", "e"], [0.5, -1.0]))
    spans = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert spans["ab"] == "dim"
    for piece, reward in (("cd", 0.5), ("e", -1.0)):
        assert spans[piece].endswith("on #{:02x}{:02x}{:02x}".format(*reward_color(reward, 1.0)))


def test_default_scale_is_the_largest_absolute_reward():
    ansi = to_ansi(Transcript("", ["a", "b"], [0.5, -2.0]))
    assert "48;2;{};{};{}m".format(*reward_color(-1.0, 1.0)) in ansi
    assert "48;2;{};{};{}m".format(*reward_color(0.25, 1.0)) in ansi
    assert "±2" in ansi


def test_newlines_show_a_mark_and_tokens_without_text_show_only_with_a_reward():
    transcript = Transcript("a\nb", ["c\n", "", "\n", ""], [1.0, 0.0, 1.0, -1.0])
    assert to_rich(transcript).plain.startswith("a\nbc⏎\n⏎\n∎\n")


@given(transcripts(), st.none() | st.integers(1, 100))
def test_no_control_character_of_the_text_reaches_the_terminal(transcript, width):
    plain = COLOR_CODE.sub("", to_ansi(transcript, width=width))
    assert all(char.isprintable() or char in "\n\u00a0\u202f\u3000\u200c\u200d" for char in plain)
    plain.encode("utf-8")


def test_escapes_are_visible():
    attack = Transcript("\x1b]0;title\x07", ["\x1b[2J", "\x9b31m", "\u202e", "\ud800"], [1.0] * 4)
    plain = to_rich(attack).plain
    assert plain.startswith(r"\x1b]0;title\x07\x1b[2J\x9b31m\u202e\ud800")


def test_ansi_colours_do_not_depend_on_the_environment(monkeypatch):
    transcript = Transcript("p", [" a", " b"], [1.0, -1.0])
    expected = to_ansi(transcript)
    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "3", "COLORTERM": ""}.items():
        monkeypatch.setenv(name, value)
    assert to_ansi(transcript) == expected
    assert COLOR_CODE.sub("", expected) == to_rich(transcript).plain


def test_ansi_wraps_only_at_a_given_width():
    transcript = Transcript("word", [" word"] * 60, [1.0] * 60)
    assert COLOR_CODE.sub("", to_ansi(transcript)).splitlines()[0] == "word" + " word" * 60
    lines = COLOR_CODE.sub("", to_ansi(transcript, width=40)).splitlines()
    assert max(map(len, lines)) <= 40
    with pytest.raises(ValueError, match="width is 0"):
        to_ansi(transcript, width=0)


class Page(HTMLParser):
    """What a browser would read: the tags, and the text of each prompt and token."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.prompts, self.tokens = [], 0, []
        self.text = ""
        self.reads = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.reads = attributes.get("class") in {"prompt", "token"}
        self.prompts += attributes.get("class") == "prompt"
        if attributes.get("class") == "token":
            self.tokens.append(("", attributes["data-reward"], attributes["style"]))

    def handle_endtag(self, tag):
        self.reads = False

    def handle_data(self, data):
        if self.reads:
            self.text += data
            if self.tokens:
                before, *rest = self.tokens[-1]
                self.tokens[-1] = (before + data, *rest)


@given(st.lists(transcripts(), max_size=3), any_text)
def test_html_shows_all_text_and_none_of_it_is_markup(shown, title):
    page = Page(to_html(shown, title=title))
    assert {"script", "b", "img", "a"}.isdisjoint(page.tags)
    assert page.tags.count("span") == 3 + page.prompts + len(page.tokens)
    assert page.prompts == page.tags.count("article") == len(shown)
    assert page.text == "".join(to_rich(t).plain.rpartition("\n")[0] for t in shown)


def test_html_tells_the_reward_of_each_token_and_shares_one_scale():
    page = to_html(
        [Transcript("p", ["<b>", "x"], [0.25, 0.0]), Transcript("", ["y"], [-1.0])],
        title="A & B",
    )
    assert Page(page).tokens == [
        (text, label, "background:#{:02x}{:02x}{:02x}".format(*reward_color(reward, 1.0)))
        for text, label, reward in [("<b>", "+0.25", 0.25), ("x", "0", 0.0), ("y", "-1", -1.0)]
    ]
    assert "<h1>A &amp; B</h1>" in page
    assert "2 episodes · 3 tokens · mean total reward -0.375" in page
    assert "total reward +0.25 · 2 tokens" in page
    assert "<span>-1</span><span>0</span><span>+1</span>" in page


def test_html_stands_alone():
    page = to_html([Transcript("p", ["a"], [1.0])])
    assert not re.search(r"://|\bsrc=|\bhref=|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page


def test_html_of_no_transcripts_is_a_page():
    assert "0 episodes · 0 tokens</p>" in to_html([])


@settings(max_examples=50, deadline=None)
@given(transcripts(), st.tuples(st.integers(1, 300), st.integers(1, 200)))
def test_the_shape_of_a_picture_never_depends_on_the_text(transcript, size):
    image = to_rgb_array(transcript, size=size)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert to_rgb_array(transcript).shape == (360, 640, 3)


def test_a_picture_shows_each_reward_as_its_color():
    image = to_rgb_array(Transcript("The", [" cat", " sat", ""], [0.5, -1.0, 0.0]))
    assert shows(image, reward_color(0.5, 1.0))
    assert shows(image, reward_color(-1.0, 1.0))
    assert not shows(image, reward_color(1.0, 1.0))
    assert not shows(image, NEUTRAL)


@pytest.mark.parametrize("piece", ["", "\n", " ", "\x1b", "中"])
def test_a_reward_is_seen_whatever_the_token_shows(piece):
    image = to_rgb_array(Transcript("The cat", [piece], [1.0]))
    assert shows(image, reward_color(1.0, 1.0))


def test_of_a_long_text_the_end_is_seen():
    first, middle, last = 0.2, 0.5, -1.0
    pieces = ["first", *[" word"] * 400, " last"]
    transcript = Transcript("", pieces, [first, *[middle] * 400, last])
    image = to_rgb_array(transcript)
    assert shows(image, reward_color(last, 1.0))
    assert not shows(image, reward_color(first, 1.0))
    # The ellipsis has the first line for itself.
    assert not (image[24:52] == reward_color(middle, 1.0)).all(axis=-1).any()
    assert (image[24:52, :60].max(axis=-1) < 180).any()


@given(st.lists(st.text("abc é中  \n⏎", max_size=8), max_size=20), st.integers(1, 250))
def test_layout_keeps_the_text_and_the_width(texts, width):
    spans = [canvas.Span(text, None) for text in texts]
    lines = canvas.layout(spans, width)
    laid = "".join(run.text for line in lines for run in line)
    assert re.sub(r"\s", "", laid) == re.sub(r"\s", "", "".join(texts))
    for line in lines:
        for run in line[1:]:
            assert run.x + run.width <= width + 12
        for run, following in pairwise(line):
            assert following.x == run.x + run.width


def test_words_of_several_tokens_stay_together():
    spans = [canvas.Span(text, None) for text in [" wait", "ing"] * 20]
    for line in canvas.layout(spans, 200):
        assert set("".join(run.text for run in line).split()) == {"waiting"}


def test_words_longer_than_a_line_fill_it():
    lines = canvas.layout([canvas.Span("a " + "w" * 100, None)], 200)
    assert len(lines) > 2
    letter = canvas.layout([canvas.Span("w", None)], 200)[0][0].width
    for line in lines[:-1]:
        assert line[-1].x + line[-1].width + letter > 200


def test_the_space_of_a_token_is_drawn_once():
    lines = canvas.layout([canvas.Span(" word", (0, 0, 0))] * 40, 200)
    assert len(lines) > 3
    spans = [index for line in lines for index, _ in groupby(line, key=lambda run: run.span)]
    # Each of the tokens is on one line only: no sliver of it ends the line before.
    assert spans == sorted(spans)
    for line, following in pairwise(lines):
        assert line[-1].text == "word"
        assert following[0].text == "word"


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 5)])
def test_a_picture_needs_pixels(size):
    with pytest.raises(ValueError, match="1 pixel or more"):
        to_rgb_array(Transcript("p", [], []), size=size)


def test_importing_costs_neither_rich_nor_pillow():
    code = (
        "import sys, textgym; before = set(sys.modules); import textgym.rendering; "
        "print({'rich', 'PIL', 'numpy'} & (set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_live_text_prints_each_token_once(capsys):
    live = LiveText()
    pieces, paid = [" a", " b", " c\n"], [0.0, 0.5, -1.0]
    for count in range(4):
        transcript = Transcript("One", pieces[:count], paid[:count])
        live.show(transcript, ended=count == 3)
        live.show(transcript, ended=count == 3)
    live.begin()
    live.show(Transcript("Two", [], []), ended=False)
    live.begin()
    live.show(Transcript("Three", [], []), ended=False)
    shown = COLOR_CODE.sub("", capsys.readouterr().out)
    assert shown == "One a b c⏎\n\ntotal reward -0.5 · 3 tokens\n\nTwo\nThree"


def test_html_labels():
    page = to_html([Transcript("p", [], []), Transcript("q", [], [])], labels=["Before", "<After>"])
    assert "<h2>Before<" in page
    assert "<h2>&lt;After&gt;<" in page
    with pytest.raises(ValueError, match="1 labels for 2 transcripts"):
        to_html([Transcript("p", [], []), Transcript("q", [], [])], labels=["Before"])
