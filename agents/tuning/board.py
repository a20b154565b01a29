"""Where trials report how they do, and read what they shall do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["go on", "prune", "stop"]
"""What a trial shall do: stop is for now, prune is for good."""


@dataclass(frozen=True)
class Report:
    """How a trial does.

    Attributes:
        number: Of the trial.
        timesteps: Tokens that it has written in training, or had when its score was measured.
        score: What was measured, if it was.
        look: Which measurement this is, by tokens of training: the same in all trials.
    """

    number: int
    timesteps: int
    score: float | None = None
    look: int = 0


class Board:
    """An actor between workers and driver, none of which can call the other.

    A trial with a score waits for its verdict: what is pruned does not depend on how fast the
    driver is. Nothing is kept here that is not told again: Ray begins an actor anew whose process
    died, and who waits for an answer asks the new one.
    """

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._news = asyncio.Event()
        self._verdicts: dict[int, asyncio.Future[Verdict]] = {}
        self._stopping = False

    async def report(self, report: Report) -> Verdict:
        """Called by a trial; returns what it shall do."""
        self._reports.append(report)
        self._news.set()
        if report.score is not None:
            waiting = asyncio.get_running_loop().create_future()
            self._verdicts[report.number] = waiting
            verdict: Verdict = await waiting
            if verdict != "go on":
                return verdict
        return "stop" if self._stopping else "go on"

    async def take(self, patience: float, *, stopping: bool = False) -> list[Report]:
        """Called by the driver again and again.

        Args:
            patience: Seconds after which it returns at the latest.
            stopping: Whether all trials shall save and stop.

        Returns:
            What was reported since.
        """
        self._stopping = stopping
        try:
            await asyncio.wait_for(self._news.wait(), patience)
        except asyncio.TimeoutError:
            return []
        self._news.clear()
        reports, self._reports = self._reports, []
        return reports

    async def answer(self, number: int, verdict: Verdict) -> None:
        """Called by the driver about the last score of a trial."""
        waiting = self._verdicts.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(verdict)
