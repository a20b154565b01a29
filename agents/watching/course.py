"""How far a run is, and the course of its figures: what a view shows, whatever it looks like."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from agents.validation import VALIDATION
from agents.watching.reward_log import MEAN_SCORE
from agents.watching.series import Series
from textgym.rendering.transcript import rounded

KL = "objective/kl"
UPDATE_KL = "train/approx_kl"

LABELS = {MEAN_SCORE: "score", VALIDATION: "validation", KL: "KL", UPDATE_KL: "KL of an update"}
"""Columns of SB3's log that are shown beside the rewards, in this order."""

_REWARD = re.compile(r"rewards/(.*)/mean")


class Course:
    """How far a run is, how fast, and what its figures have been.

    Figures go by their columns in SB3's log, so that the log of a run that goes on is its past.

    Args:
        clock: Seconds since some moment.

    Attributes:
        total: Tokens of the whole run.
        timesteps: Tokens written so far.
        phase: What is being done, in a word.
        note: What there is to say beside, if anything.
        rate: Tokens a second, updates included; None before the first update has ended.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self.timesteps = 0
        self.phase = "writing"
        self.note = ""
        self.rate: float | None = None
        self._clock = clock
        self._began = clock()
        self._ticks: deque[tuple[float, int]] = deque(maxlen=32)
        self._series: dict[str, Series] = {}

    def begin(self, timesteps: int, total: int) -> None:
        """Training begins, or goes on, after so many tokens."""
        self.timesteps, self.total = timesteps, total
        self._began = self._clock()
        self._ticks.clear()

    def tick(self, timesteps: int) -> None:
        """A rollout begins: the time to measure, since writing alone is faster than all."""
        self.timesteps = timesteps
        self._ticks.append((self._clock(), timesteps))
        (then, before), (now, after) = self._ticks[0], self._ticks[-1]
        if after > before and now > then:
            self.rate = (after - before) / (now - then)

    @property
    def done(self) -> float:
        """Share of the run that is done."""
        return min(self.timesteps / self.total, 1.0) if self.total else 0.0

    @property
    def seconds(self) -> float:
        """Time since training began, or went on."""
        return self._clock() - self._began

    @property
    def seconds_left(self) -> float | None:
        """Time until the end at the present rate; None while that is not known, and at the end."""
        if self.rate is None or self.timesteps >= self.total:
            return None
        return (self.total - self.timesteps) / self.rate

    def add(self, figures: Mapping[str, Any]) -> None:
        """Take those of some columns of the log that are shown; others are passed over."""
        for column, value in figures.items():
            if column in LABELS or _REWARD.fullmatch(column):
                self._series.setdefault(column, Series()).add(float(value))

    def last(self, column: str) -> float | None:
        """The latest figure of a column, if there was any."""
        series = self._series.get(column)
        return None if series is None else series.last

    def shown(self) -> list[tuple[str, str, Series]]:
        """The columns to show, in order, each with its label.

        A reward that is the only one, and the score itself, is left out, and so is the KL of an
        update where there is that from the model before training.
        """
        series = dict(self._series)  # a view may look from another thread
        rewards = sorted(column for column in series if _REWARD.fullmatch(column))
        if len(rewards) == 1 and MEAN_SCORE in series:
            same = series[rewards[0]].points == series[MEAN_SCORE].points
            rewards = [] if same else rewards
        if KL in series:
            series.pop(UPDATE_KL, None)
        order = [MEAN_SCORE, *rewards, *(column for column in LABELS if column != MEAN_SCORE)]
        return [(column, _label(column), series[column]) for column in order if column in series]


def _label(column: str) -> str:
    reward = _REWARD.fullmatch(column)
    return LABELS[column] if reward is None else f"  {reward[1]}"


def duration(seconds: float) -> str:
    """A time in words: `42 s`, `3 min 20 s`, `2 h 05 min`, `1 d 03 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def figure(column: str, value: float) -> str:
    """The figure of a column; divergences have no sign, and those of an update are small."""
    digits = {KL: 2, UPDATE_KL: 4}.get(column)
    return number(value) if digits is None else rounded(value, f".{digits}f")


def number(value: float) -> str:
    """A figure with its sign, in at most nine characters."""
    return rounded(value, "+.3f") if abs(value) < 1000 else f"{value:+.3g}"
