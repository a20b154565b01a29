"""The live view as lines that fit a terminal: pure functions of a run's course and a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.segment import ControlType, Segment
from rich.text import Text

from agents.watching.course import Course, duration, figure, number
from agents.watching.reward_log import MEAN_SCORE
from agents.watching.series import sparkline
from textgym.rendering import INK, Transcript, reward_color
from textgym.rendering.transcript import hex_color, printable, shown_tokens

_SPARKLINE_COLUMNS = 64
_SAMPLE_LINES = 4
_SCORE_COLUMNS = 8


@dataclass(frozen=True)
class Sample:
    """A text as it is shown: with its score, and each token's reward."""

    score: float
    transcript: Transcript


class Unwrapped:
    """Lines that a terminal cuts at its edge, instead of wrapping them.

    Terminals disagree about the width of some characters, emoji above all. A line that wraps
    where it was not expected to would shift all that is redrawn in place.

    Args:
        lines: Each of them fits the width, as far as one can tell.
    """

    def __init__(self, lines: Sequence[Text]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _control("\x1b[?7l")
        yield Group(*self._lines)
        yield _control("\x1b[?7h")


def _control(code: str) -> Segment:
    return Segment(code, None, [(ControlType.CURSOR_FORWARD, 0)])  # any, to be no text


def screen(course: Course, samples: Sequence[Sample], console: Console) -> Unwrapped:
    """The whole view, of a terminal's width and at most its height."""
    width, height = console.width, console.height - 1
    lines = [*_progress(course, width), _cut(Text(course.note, style="yellow"), width)]
    lines += figures(course, width, max(height - len(lines), 1))
    if samples and height - len(lines) > 3:
        lines += [Text(), _legend(samples, width)]
        lines += _sample_lines(samples, console, width, height - len(lines))
    return Unwrapped(lines[: max(height, 1)])


def _progress(course: Course, width: int) -> list[Text]:
    total = f"{course.total:,}"
    counted = f" {course.timesteps:>{len(total)},}/{total} tokens {course.done:4.0%}"
    columns = max(width - len(counted) - 9, 0)
    filled = round(course.done * columns)
    bar = Text.assemble(
        (f"{course.phase:<9}", "bold"),
        ("━" * filled, "cyan"),
        ("━" * (columns - filled), "bright_black"),
        counted,
    )
    facts = [f"{duration(course.seconds)} so far"]
    if course.rate is not None:
        facts.insert(0, f"{course.rate:,.0f} tokens a second")
    if course.seconds_left is not None:
        facts.append(f"{duration(course.seconds_left)} left")
    return [_cut(bar, width), _cut(Text(" · ".join(facts), style="dim"), width)]


def figures(course: Course, width: int, height: int) -> list[Text]:
    """A line a figure: its name, the latest, its course as a sparkline, and its range.

    A sparkline is as long as a bar of the run's progress would be in its place.
    """
    shown = course.shown()
    if not shown:
        return [_cut(Text("the first texts are being written", style="dim"), width)]
    label_columns = min(max(cell_len(printable(label)) for _, label, _ in shown), width // 3)
    lines = []
    for column, label, series in shown:
        points = series.points
        style = "bold" if column == MEAN_SCORE else ""
        name = set_cell_size(printable(label), label_columns)
        columns = min(max(width - label_columns - 32, 0), _SPARKLINE_COLUMNS)
        bars = sparkline(points, min(max(round(course.done * columns), 1), columns))
        line = Text.assemble(
            (f"{name} {figure(column, series.last):>9}  ", style),
            (f"{bars:<{columns}}  ", "cyan"),
            (f"{_spread(column, points):>18}" if points else "", "dim"),
        )
        lines.append(_cut(line, width))
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines[height - 1 :] = [_cut(Text(f"… and {hidden} more", style="dim"), width)]
    return lines


def _spread(column: str, points: Sequence[float]) -> str:
    return f"{figure(column, min(points))} to {figure(column, max(points))}"


def _legend(samples: Sequence[Sample], width: int) -> Text:
    scale = _scale(samples)
    line = Text("samples, each token by its reward ", style="dim")
    for reward in (-scale, 0.0, scale):
        line.append(f" {reward:+.2g} " if reward else " 0 ", style=_style(reward, scale))
    return _cut(line, width)


def _sample_lines(
    samples: Sequence[Sample], console: Console, width: int, height: int
) -> list[Text]:
    scale = _scale(samples)
    samples = samples[: max(height // 2, 1)]
    most = min(height // len(samples), _SAMPLE_LINES)
    lines: list[Text] = []
    for sample in samples:
        text = _sample_text(sample.transcript, scale, width // 2)
        wrapped = list(text.wrap(console, max(width - _SCORE_COLUMNS, 1), overflow="fold"))
        if len(wrapped) > most:
            wrapped = wrapped[:most]
            wrapped[-1].truncate(width - _SCORE_COLUMNS - 1)
            wrapped[-1].append("…", style="dim")
        for place, part in enumerate(wrapped):
            score = f"{number(sample.score):>{_SCORE_COLUMNS - 1}} " if place == 0 else ""
            lines.append(_cut(Text.assemble((f"{score:<{_SCORE_COLUMNS}}", "bold"), part), width))
    return lines


def _sample_text(transcript: Transcript, scale: float, prompt_columns: int) -> Text:
    """The end of the prompt, and the tokens coloured, on one line."""
    prompt = _one_line(printable(transcript.prompt))
    if cell_len(prompt) > prompt_columns:
        prompt = "…" + _end(prompt, prompt_columns - 1)
    text = Text(prompt, style="dim")
    for shown, reward in shown_tokens(transcript):
        text.append(_one_line(shown), style="dim" if reward is None else _style(reward, scale))
    return text


def _one_line(text: str) -> str:
    return text.replace("⏎\n", "⏎").replace("\n", "⏎")


def _end(text: str, columns: int) -> str:
    """As much of the end of a text as fits so many columns."""
    backwards = chop_cells(text[::-1], max(columns, 1))
    return backwards[0][::-1]


def _scale(samples: Sequence[Sample]) -> float:
    rewards = (abs(reward) for sample in samples for reward in sample.transcript.rewards)
    return max(rewards, default=0.0) or 1.0


def _style(reward: float, scale: float) -> str:
    return f"{hex_color(INK)} on {hex_color(reward_color(reward, scale))}"


def _cut(line: Text, width: int) -> Text:
    """The line cut to a width, so that it never wraps."""
    line.no_wrap = True
    line.truncate(width, overflow="crop")
    return line
