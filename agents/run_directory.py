"""The directory of a run: which file is where, and how each is written so that none is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from agents.episodes import Episode
from agents.evaluation import mean_score
from textgym.files import atomic_write

_STATES = ("reward_state", "template_state")
"""What an environment has learned of the course of training, and loads by `load_<name>`."""


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
    def page(self) -> Path:
        """The held-out prompts before and after, every token coloured."""
        return self.path / "samples.html"

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
    def checkpoint(self) -> Path:
        """SB3's archive, with which a run that was stopped goes on."""
        return self.path / "checkpoint.zip"

    @property
    def state(self) -> Path:
        """Weights and optimizer with which supervised learning that was stopped goes on."""
        return self.path / "checkpoint.pt"

    def check_new(self, command: str = "train") -> None:
        """Raise if something is in the way of a new run of a command here."""
        if self.path.is_file():
            raise FileExistsError(f"--output {self.path} is a file; give a directory.")
        if self.config.exists():
            raise FileExistsError(
                f"--output {self.path} holds a run already. Give another directory, or go on "
                f"with that run: textgym {command} --resume {self.path}"
            )

    def check_resumable(self, *needed: Path) -> None:
        """Raise if there is no run here that can go on.

        Args:
            needed: The files that it takes; none for those of a training with rewards.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"--resume {self.path}: there is no such directory.")
        needed = needed or (self.config, self.before, self.checkpoint)
        missing = [path for path in needed if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"--resume {self.path}: there is no {missing[0].name} to go on with. Start the "
                "run again."
            )

    def forget_after(self, timesteps: int) -> None:
        """Drop what was logged after a checkpoint, since the run goes on from there."""
        # A run that was stopped before it logged anything has an empty log.
        if self.progress.is_file() and self.progress.stat().st_size > 0:
            header, *rows = self.progress.read_text(encoding="utf-8").splitlines()
            at = header.split(",").index("time/total_timesteps")
            kept = [row for row in rows if int(row.split(",")[at] or 0) <= timesteps]
            atomic_write(self.progress, "\n".join([header, *kept]) + "\n")
        if self.samples.is_file():
            lines = self.samples.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["timesteps"] <= timesteps]
            atomic_write(self.samples, "".join(line + "\n" for line in kept))

    def logger(self) -> Logger:
        """A logger that goes on with the log that is there."""
        writers = [GrowingCSV(self.progress), TensorBoardOutputFormat(str(self.path))]
        return Logger(str(self.path), writers)

    def save_before(self, episodes: Sequence[Episode]) -> None:
        """Keep the texts from before training, for a run that is stopped and goes on."""
        records = [dataclasses.asdict(episode) for episode in episodes]
        atomic_write(self.before, json.dumps(records, ensure_ascii=False))

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

    def load_before(self) -> list[Episode]:
        """The texts from before training."""
        return [Episode(**record) for record in json.loads(self.before.read_text("utf-8"))]


class GrowingCSV(CSVOutputFormat):
    """SB3's CSV log, which goes on with the rows that a file has instead of emptying it."""

    def __init__(self, path: Path) -> None:
        earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
        super().__init__(str(path))
        if earlier:
            self.keys = earlier.partition("\n")[0].split(",")
            self.file.write(earlier)
            self.file.flush()


def restore_progress(algorithm: BaseAlgorithm) -> None:
    """Let a loaded algorithm's environment go on from its checkpoint: rewards and templates."""
    env = algorithm.get_env()
    assert env is not None
    for name in _STATES:
        env.env_method(f"load_{name}", getattr(algorithm, name, {}))


class Checkpoint(BaseCallback):
    """Saves the algorithm between updates, so that a run that is killed can go on.

    What the environment has learned of the course of training goes into the same archive.

    Args:
        path: The archive; written under a temporary name and renamed.
        every: Seconds between two of them, at least.
    """

    def __init__(self, path: Path, every: float = 30.0) -> None:
        super().__init__()
        self._path = path
        self._every = every
        self._saved = 0.0

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._saved >= self._every:
            self.save()

    def _on_step(self) -> bool:
        return True

    def save(self) -> None:
        """Save now."""
        temporary = self._path.with_name(f".{self._path.name}")
        # SB3 saves an algorithm's attributes, those that are JSON-able as JSON.
        for name in _STATES:
            setattr(self.model, name, self.training_env.env_method(name, indices=[0])[0])
        self.model.save(temporary)
        os.replace(temporary, self._path)
        self._saved = time.monotonic()
