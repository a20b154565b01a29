"""What a person sees of a training run while it goes on, and what is kept of it."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback

from agents.episodes import Episode, EpisodeRecorder
from textgym.rendering import to_rich
from textgym.tokenizer import Tokenizer


class EpisodeCollector(BaseCallback):
    """Puts the episodes of a rollout together, once for all callbacks that look at texts.

    Stands before them in the list of callbacks.

    Attributes:
        episodes: Those that ended in the current rollout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[Episode] = []

    def _on_training_start(self) -> None:
        self._recorder = EpisodeRecorder(self.training_env.num_envs)

    def _on_rollout_start(self) -> None:
        self.episodes = []

    def _on_step(self) -> bool:
        step = (self.locals[key] for key in ("actions", "rewards", "dones", "infos"))
        rows = self.locals.get("rows")  # in which a token was written; SB3 knows of no others
        self.episodes += self._recorder.add(*step, rows=rows).values()
        return True


class SampleLog(BaseCallback):
    """Writes texts of every rollout to a JSON-lines file, and logs what each reward paid.

    A line holds `timesteps`, `prompt`, `text`, `score`, `scores`, `token_ids` and `rewards`.
    Logged are `rewards/<name>/mean` and `rewards/<name>/std`, without weights, and
    `completions/mean_length`, over the episodes that ended in the rollout; `rewards/<name>/weight`
    as it stands now, where there are several rewards or a weight that changes.

    Args:
        path: The file; appended to.
        collector: Has the episodes.
        samples: Texts of each rollout to write.
    """

    def __init__(self, path: Path, collector: EpisodeCollector, samples: int = 8) -> None:
        super().__init__()
        self._path = path
        self._collector = collector
        self._samples = samples

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        episodes = self._collector.episodes
        if not episodes:
            return
        for name in episodes[0].scores:
            scores = [episode.scores[name] for episode in episodes]
            self.logger.record(f"rewards/{name}/mean", float(np.mean(scores)))
            self.logger.record(f"rewards/{name}/std", float(np.std(scores)))
        weights = self.training_env.env_method("reward_weights", indices=[0])[0]
        if len(weights) > 1 or self.training_env.env_method("reward_state", indices=[0])[0]:
            for name, weight in weights.items():
                self.logger.record(f"rewards/{name}/weight", weight)
        lengths = [len(episode.token_ids) for episode in episodes]
        self.logger.record("completions/mean_length", float(np.mean(lengths)))
        with self._path.open("a", encoding="utf-8") as file:
            for episode in episodes[: self._samples]:
                file.write(json.dumps(self._record(episode), ensure_ascii=False) + "\n")

    def _record(self, episode: Episode) -> dict[str, Any]:
        return {
            "timesteps": self.num_timesteps,
            "prompt": episode.prompt,
            "text": episode.text,
            "score": round(episode.score, 6),
            "scores": {name: round(score, 6) for name, score in episode.scores.items()},
            "token_ids": episode.token_ids,
            "rewards": [round(reward, 6) for reward in episode.rewards],
        }


class LiveView(BaseCallback):
    """Shows a run as it goes on: progress, mean score and its course, and fresh samples.

    In a terminal the view is redrawn in place; elsewhere it is one line a rollout.

    Args:
        total_timesteps: Tokens of the whole run.
        collector: Has the episodes.
        tokenizer: Shows single tokens.
        console: Where to print.
        samples: Texts shown at a time.

    Attributes:
        kl: Distance from the model before training in the last rollout, in nats a text; None if
            the algorithm does not measure it.
    """

    def __init__(
        self,
        total_timesteps: int,
        collector: EpisodeCollector,
        tokenizer: Tokenizer,
        console: Console,
        samples: int = 3,
    ) -> None:
        super().__init__()
        self._collector = collector
        self._tokenizer = tokenizer
        self._console = console
        self._samples = samples
        self._means: list[float] = []
        self.kl: float | None = None
        self._shown: deque[Episode] = deque(maxlen=samples)
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
            TextColumn("[dim]{task.fields[left]}[/]"),
            console=console,
        )
        self._task = self._progress.add_task("writing", total=total_timesteps, left="")
        self._total = total_timesteps
        self._rate: float | None = None
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=4, transient=True
        )

    def _on_training_start(self) -> None:
        self._started, self._first = time.perf_counter(), self.num_timesteps
        if self._console.is_terminal:
            self._live.start()

    def _on_rollout_start(self) -> None:
        left = ""
        if self.num_timesteps > self._first:
            # Measured where an update has just ended: writing alone is several times as fast.
            seconds = time.perf_counter() - self._started
            self._rate = (self.num_timesteps - self._first) / seconds
            left = f"{max(self._total - self.num_timesteps, 0) / self._rate:,.0f} s left"
        self._progress.update(self._task, description="writing", left=left)

    def _on_step(self) -> bool:
        self._progress.update(self._task, completed=self.num_timesteps)
        return True

    def _on_rollout_end(self) -> None:
        self._progress.update(self._task, description="learning")
        episodes = self._collector.episodes
        if not episodes:
            return
        kl = self.logger.name_to_value.get("objective/kl")
        self.kl = None if kl is None else round(kl, 1) + 0.0  # never -0.0
        self._means.append(float(np.mean([episode.score for episode in episodes])))
        self._shown.extend(episodes[: self._samples])
        if not self._console.is_terminal:
            self._console.print(self._summary())

    def _on_training_end(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the view off the terminal; also where training ended with an error."""
        self._live.stop()

    def _render(self) -> Group:
        samples = [to_rich(episode.transcript(self._tokenizer)) for episode in self._shown]
        gaps = (part for sample in samples for part in (Text(), sample))
        return Group(self._progress, self._summary(), *gaps)

    def _summary(self) -> Text:
        if not self._means:
            return Text("the first texts are being written", style="dim")
        rate = "" if self._rate is None else f", {self._rate:,.0f} a second"
        kl = "" if self.kl is None else f", KL {self.kl:.1f}"
        return Text.assemble(
            ("mean score ", "dim"),
            (f"{self._means[-1]:+.3f}", "bold"),
            f"  {sparkline(self._means)}  ",
            (f"{self.num_timesteps:,} tokens{rate}{kl}", "dim"),
        )


def sparkline(values: list[float], width: int = 24) -> str:
    """The last values as a row of bars, the lowest of them empty and the highest full."""
    values = values[-width:]
    low, high = min(values), max(values)
    steps = " ▁▂▃▄▅▆▇█"
    span = (high - low) or 1.0
    return "".join(steps[round((value - low) / span * (len(steps) - 1))] for value in values)
