"""The live view fits every terminal, whatever it shows."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from agents.watching.course import Course, duration, figure
from agents.watching.plain_view import PlainView, plain_line
from agents.watching.screen import Sample, screen
from textgym.rendering import Transcript

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def make_console(width: int = 80, height: int = 24) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        width=width,
        height=height,
        legacy_windows=False,
    )


def make_course(rewards: int = 2, timesteps: int = 5_000) -> Course:
    now = [0.0]
    course = Course(clock=lambda: now[0])
    course.begin(0, 20_000)
    for step in range(5):
        course.tick(step * timesteps // 4)
        now[0] += 2.0
        names = [f"reward_{index}" for index in range(rewards)]
        course.add({f"rewards/{name}/mean": step / 4 for name in names})
        course.add({"rollout/mean_score": step / 8, "objective/kl": step, "time/fps": 3.0})
    course.add({"validation/mean_score": 0.25})
    return course


def shown(
    course: Course, samples: list[Sample], width: int = 80, height: int = 24
) -> tuple[list[str], str]:
    """The lines of the view, and what was written to show them."""
    console = make_console(width, height)
    console.print(screen(course, samples, console))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    return ESCAPE.sub("", written).split("\n")[:-1], written


SAMPLE = Sample(0.75, Transcript("My lord, I", [" love", " you", ""], [0.5, 0.25, 0.0]))


@pytest.mark.parametrize("width", [80, 140])
def test_what_is_shown(width: int) -> None:
    lines, written = shown(make_course(), [SAMPLE], width)
    assert lines[0].startswith("writing  ━━━")
    assert lines[0].endswith(" 5,000/20,000 tokens  25%")
    assert len(lines[0]) == width
    assert lines[1] == "625 tokens a second · 10 s so far · 24 s left"
    table = [line.split() for line in lines[3:8]]
    assert [row[0] for row in table] == ["score", "reward_0", "reward_1", "validation", "KL"]
    assert [row[1] for row in table] == ["+0.500", "+1.000", "+1.000", "+0.250", "4.00"]
    # The bars are as long as a quarter of their place.
    assert {len(row[2]) for row in table} == {{80: 10, 140: 16}[width]}
    assert table[0][3:] == ["+0.000", "to", "+0.500"]
    assert lines[9] == "samples, each token by its reward  -0.5  0  +0.5 "
    assert lines[10].rstrip() == " +0.750 My lord, I love you"
    assert "48;2;38;181;168m love" in written  # full colour


def test_lines_are_not_to_be_wrapped_and_what_follows_is() -> None:
    _, written = shown(make_course(), [SAMPLE])
    assert written.startswith("\x1b[?7l")
    assert written.rstrip("\n").endswith("\x1b[?7h")
    assert written.count("\x1b[?7") == 2


TEXTS = st.one_of(
    st.text(max_size=400),
    st.text(
        alphabet="中🇩🇪👨\u200d👩❤\ufe0f👍🏽\u0301\u05d9\u0915\u094d\n\t\x1b\x00 a", max_size=99
    ),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=9)), max_size=4),
    st.integers(1, 160),
    st.integers(2, 50),
    st.integers(0, 40),
)
def test_it_fits_the_terminal(
    texts: list[tuple[str, list[str]]], width: int, height: int, rewards: int
) -> None:
    samples = [
        Sample(-0.5, Transcript(prompt, pieces, [1.0] * len(pieces))) for prompt, pieces in texts
    ]
    lines, written = shown(make_course(rewards), samples, width, height)
    assert len(lines) <= max(height - 1, 1)
    assert max(map(cell_len, lines)) <= width
    assert "\x1b[" not in ESCAPE.sub("", written)
    assert "\x00" not in written


def test_long_prompts_keep_their_end_and_long_texts_their_beginning() -> None:
    transcript = Transcript("很" * 500 + "end", [" word"] * 300, [0.1] * 300)
    lines, _ = shown(make_course(), [Sample(1.0, transcript)])
    at = next(place for place, line in enumerate(lines) if "很" in line)
    assert lines[at].startswith(" +1.000 …很")
    assert "end word word" in lines[at]
    assert lines[-1].rstrip().endswith("…")
    assert len(lines) == at + 4


def test_what_has_no_room_is_counted() -> None:
    lines, _ = shown(make_course(rewards=30), [SAMPLE], height=14)
    assert len(lines) == 13
    assert lines[-1].strip() == "… and 24 more"


def test_a_single_reward_that_is_the_score_is_not_shown_twice() -> None:
    course = Course()
    course.add({"rollout/mean_score": 0.5, "rewards/sentiment/mean": 0.5})
    assert [label for _, label, _ in course.shown()] == ["score"]
    course.add({"rollout/mean_score": 0.5, "rewards/sentiment/mean": 0.7})
    assert [label for _, label, _ in course.shown()] == ["score", "  sentiment"]


def test_an_update_s_kl_is_shown_where_there_is_no_other() -> None:
    course = Course()
    course.add({"train/approx_kl": 0.01})
    assert [label for _, label, _ in course.shown()] == ["KL of an update"]
    course.add({"objective/kl": 1.0})
    assert [label for _, label, _ in course.shown()] == ["KL"]


def test_before_the_first_texts() -> None:
    lines, _ = shown(Course(), [])
    assert lines[-1] == "the first texts are being written"


def test_a_run_that_goes_on_has_the_rate_of_what_it_writes_now() -> None:
    now = [100.0]
    course = Course(clock=lambda: now[0])
    course.begin(15_000, 20_000)
    course.tick(15_000)
    now[0] += 4.0
    course.tick(16_000)
    assert course.rate == 250.0
    assert course.seconds_left == 16.0
    course.tick(20_480)  # more than asked for: whole rollouts
    assert course.seconds_left is None
    course.add({"rollout/mean_score": 0.5})
    assert "left" not in plain_line(course)


def test_plain_lines() -> None:
    assert plain_line(make_course()) == (
        "5,000/20,000 tokens  score +0.500  reward_0 +1.000  reward_1 +1.000  validation +0.250  "
        "KL 4.00  625 tokens/s  24 s left"
    )
    now = [0.0]
    console = Console(file=io.StringIO(), width=40)
    view = PlainView(console, every=1.0, clock=lambda: now[0])
    course = make_course()
    view.show(Course())
    for step in range(11):
        now[0], course.timesteps = 0.25 * step, 5_000 + step
        view.show(course)
    course.timesteps = 5_011
    view.show(course, is_last=True)
    view.show(course, is_last=True)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line.partition("/")[0] for line in written.splitlines()] == [
        "5,000", "5,004", "5,008", "5,011",
    ]  # fmt: skip
    assert written.isascii()
    assert "\x1b" not in written


def test_figures_in_words() -> None:
    assert [duration(s) for s in (0.4, 59.6, 3599, 7_260, 100_000)] == [
        "0 s", "1 min 00 s", "59 min 59 s", "2 h 01 min", "1 d 03 h",
    ]  # fmt: skip
    assert figure("objective/kl", -0.001) == "0.00"
    assert figure("rollout/mean_score", -0.0001) == "+0.000"
    assert figure("train/approx_kl", 0.00123) == "0.0012"
    assert figure("rollout/mean_score", -123456.0) == "-1.23e+05"
