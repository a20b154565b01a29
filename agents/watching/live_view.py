"""A run as it goes on, in the terminal."""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from stable_baselines3.common.logger import Logger

from agents.interrupts import to_standard_error
from agents.watching.course import KL, Course
from agents.watching.episode_callback import EpisodeCallback, EpisodeCollector
from agents.watching.plain_view import PlainView
from agents.watching.reward_log import mean_scores
from agents.watching.screen import Sample, Unwrapped, figures, screen
from agents.watching.tap import Tap
from textgym.tokenizer import Tokenizer

_SAMPLES_STAY = 2.0
"""Seconds that samples are shown, at least, so that they can be read."""


class LiveView(EpisodeCallback):
    """Shows how far a run is, the course of its figures, and what it writes.

    In a terminal that is a view redrawn in place: progress, time left, tokens a second; the score,
    each reward, KL and validation with their courses; a few texts, each token coloured by its
    reward. What is printed meanwhile appears above it. Elsewhere it is a plain line a rollout.

        model.learn(100_000, callback=LiveView())

    It goes when training ends. Where that ends with an error the view goes with the program; to
    have it go at once, as in a notebook, write `with LiveView() as view:` around `learn`.

    Args:
        console: Where to show it; standard output if None. On one that is quiet there is no view.
        collector: Has the texts; None to put them together here.
        samples: Texts shown at a time.
        history: What was logged before, a row a rollout, of a run that goes on.
    """

    def __init__(
        self,
        console: Console | None = None,
        collector: EpisodeCollector | None = None,
        samples: int = 3,
        history: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(collector)
        self._console = console or Console()
        self._most = samples
        self.course = Course()
        for row in history:
            self.course.add(row)
        self._samples: tuple[Sample, ...] = ()
        self._sampled_at = -_SAMPLES_STAY
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            vertical_overflow="crop",
        )
        self._plain: PlainView | None = None
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self._plain = PlainView(self._console)
        self._tap = Tap(self._hear)
        self._tapped: Logger | None = None

    @property
    def kl(self) -> float | None:
        """KL from the model before training, in nats a text; None where nothing measures it."""
        return self.course.last(KL)

    def __enter__(self) -> LiveView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def tell(self, message: str) -> None:
        """Say something at once, in the view or on standard error; signal handlers may do so."""
        if self._live.is_started:
            self.course.note = message
        else:
            to_standard_error(message)

    def stop(self) -> None:
        """Take the view off the terminal, and leave the course of the figures there."""
        if self._tapped is not None:
            self._tapped.output_formats.remove(self._tap)
            self._tapped = None
            if self._plain is not None:
                self._plain.show(self.course, is_last=True)
        if self._live.is_started:
            self._live.stop()
            atexit.unregister(self.stop)
            if self.course.shown():
                self._console.print(*figures(self.course, self._console.width, 99), sep="\n")

    def _on_training_start(self) -> None:
        process = self.training_env.get_attr("process", indices=[0])[0]
        self._tokenizer: Tokenizer = process.tokenizer
        self.course.begin(self.num_timesteps, self.model._total_timesteps)
        self._tapped = self.logger
        self._tapped.output_formats.append(self._tap)
        if self._plain is None and not self._console.quiet:
            self._live.start()
            atexit.register(self.stop)

    def _on_rollout_start(self) -> None:
        self.course.tick(self.num_timesteps)
        if self._plain is not None:
            self._plain.show(self.course)

    def _on_step(self) -> bool:
        self.course.phase = "writing"
        self.course.timesteps = self.num_timesteps
        return True

    def _on_rollout_end(self) -> None:
        self.course.phase = "learning"
        if not self.outcomes:
            return
        self.course.add(mean_scores(self.outcomes))
        now = time.monotonic()
        if now - self._sampled_at >= _SAMPLES_STAY:
            self._samples = tuple(
                Sample(episode.score, episode.transcript(self._tokenizer))
                for episode in self.episodes[: self._most]
            )
            self._sampled_at = now

    def _on_training_end(self) -> None:
        self.course.tick(self.num_timesteps)
        self.stop()

    def _hear(self, row: dict[str, Any]) -> None:
        """Take what the texts do not tell from SB3's log."""
        self.course.add({key: n for key, n in row.items() if not key.startswith(_OF_TEXTS)})

    def _render(self) -> Unwrapped:
        return screen(self.course, self._samples, self._console)


_OF_TEXTS = ("rewards/", "rollout/")
"""Columns of what the view finds out by itself, in scripts that do not log it, too."""
