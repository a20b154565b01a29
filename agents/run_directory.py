"""The directory of a run: which file is where, and how each is written so that none is lost."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import Logger

from agents.episodes import Episode
from agents.evaluation import Written, mean_score
from agents.loggers import make_logger
from agents.loggers.csv_log import forget_rows
from textgym.files import atomic_write, durable_write
from textgym.shell import program


@dataclass(frozen=True)
class RunDirectory:
    """Where the files of a run are.

    Args:
        path: The directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings; its presence makes the directory a run."""
        return self.path / "config.yaml"

    @property
    def progress(self) -> Path:
        """SB3's log."""
        return self.path / "progress.csv"

    @property
    def samples(self) -> Path:
        """Texts written in training, with what each token earned."""
        return self.path / "samples.jsonl"

    @property
    def before(self) -> Path:
        """The texts for the held-out prompts before training."""
        return self.path / "before.json"

    @property
    def curves(self) -> Path:
        """The picture of the run's course."""
        return self.path / "curves.png"

    @property
    def report(self) -> Path:
        """The page of the run; see `agents.reporting`."""
        return self.path / "report.html"

    @property
    def texts(self) -> Path:
        """What is known of every token of the texts before and after training."""
        return self.path / "texts.json"

    @property
    def about(self) -> Path:
        """What the settings do not say: the machine, the versions, what was chosen."""
        return self.path / "about.json"

    @property
    def model(self) -> Path:
        """The trained model in Hugging Face layout: the best by validation, if there is any."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The trained adapter alone, of a run that trains one, as PEFT reads it."""
        return self.path / "adapter"

    @property
    def best(self) -> Path:
        """How good the model was, and when, if validation chose it."""
        return self.path / "best.json"

    @property
    def result(self) -> Path:
        """What a run that has ended reached, in numbers."""
        return self.path / "result.json"

    @property
    def start(self) -> Path:
        """The weights before training, of those that are trained."""
        return self.path / "start.safetensors"

    @property
    def diverged(self) -> Path:
        """What a run was learning from when it diverged."""
        return self.path / "diverged"

    @property
    def checkpoints(self) -> Path:
        """With which a run that was stopped goes on; see `agents.checkpointing`."""
        return self.path / "checkpoints"

    def check_new(self, command: str = "train") -> None:
        """Raise if something is in the way of a new run of a command here."""
        if self.path.is_file():
            raise FileExistsError(f"--output {self.path} is a file; give a directory.")
        if self.config.exists() or self.checkpoints.exists():
            raise FileExistsError(
                f"--output {self.path} holds a run already. Give another directory, or go on "
                f"with that run: {program()} {command} --resume {shlex.quote(str(self.path))}"
            )

    def is_of(self, launch: str) -> bool:
        """Whether there is a run here, and it was begun by that launch."""
        if not (self.config.is_file() and self.about.is_file()):
            return False
        begun_by = json.loads(self.about.read_text(encoding="utf-8")).get("launch")
        return bool(begun_by == launch)

    def check_resumable(self) -> None:
        """Raise if there is no run here; one that has no checkpoint yet begins anew."""
        if not self.path.is_dir():
            raise FileNotFoundError(f"--resume {self.path}: there is no such directory.")
        if not self.config.is_file():
            raise FileNotFoundError(
                f"--resume {self.path}: there is no run in this directory (no "
                f"{self.config.name}). Give the directory of a run that was stopped."
            )

    def forget_after(self, timesteps: int) -> None:
        """Drop what was logged after a checkpoint, since the run goes on from there."""
        if self.progress.is_file():
            forget_rows(self.progress, timesteps)
        if self.samples.is_file():
            lines = _whole_lines(self.samples)
            kept = [line for line in lines if json.loads(line)["timesteps"] <= timesteps]
            atomic_write(self.samples, "".join(kept))

    def logger(self, names: Sequence[str] = ("tensorboard",), *, after: int = 0) -> Logger:
        """A logger that goes on with the log that is there; see `agents.loggers`.

        Args:
            names: Its writers, beside that of `progress.csv`.
            after: Tokens after which the run goes on.
        """
        return make_logger(self.path, names, after=after)

    def save_before(self, written: Sequence[Written]) -> None:
        """Keep the texts from before training, for a run that is stopped and goes on."""
        records = [
            {
                **dataclasses.asdict(each.episode),
                "contexts": [[begin, context.tolist()] for begin, context in each.contexts],
                "components": each.components,
            }
            for each in written
        ]
        # ASCII only, since a text may hold half a surrogate pair.
        durable_write(self.before, json.dumps(records).encode())

    def save_result(
        self, what: str, before: Sequence[Episode], after: Sequence[Episode], timesteps: int
    ) -> None:
        """Note what a training with rewards reached.

        Args:
            what: The prompts on which it was judged, in a few words.
            before: What was written for them before training.
            after: The same after it, by the model that was kept.
            timesteps: Tokens that were written in training.
        """
        result = {
            "what": what,
            "score_before": mean_score(before),
            "score_after": mean_score(after),
            "timesteps": timesteps,
        }
        atomic_write(self.result, json.dumps(result, indent=1) + "\n")

    def load_before(self) -> list[Written]:
        """The texts from before training."""
        return [_written(record) for record in json.loads(self.before.read_text("utf-8"))]


def _written(record: dict[str, Any]) -> Written:
    contexts = [(begin, np.array(ids, np.int32)) for begin, ids in record.pop("contexts")]
    components = record.pop("components")
    return Written(Episode(**record), contexts, components)


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file, with their ends; the last one may be torn where a run was killed."""
    if not path.is_file():
        return []
    # As bytes: a torn line may end within a character.
    lines = path.read_bytes().splitlines(keepends=True)
    return [line.decode() for line in lines if line.endswith(b"\n")]
