"""A run as its directory tells of it, without a model and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agents.reporting.progress import TIMESTEPS, read_progress


@dataclass(frozen=True)
class Run:
    """What there is to report of a run, whether it ended or was stopped.

    Attributes:
        path: The directory.
        name: What it is called beside the others of a report.
        settings: What its run file says, by name.
        run_file: The run file itself.
        progress: The rows of its log.
        result: What it reached; empty if it has not ended.
        about: What `write_about` wrote; empty if nothing.
        texts: What `write_texts` wrote; empty if nothing.
        before: The texts before training, as a run that goes on keeps them.
        samples: Texts written in training.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    run_file: str
    progress: Sequence[Mapping[str, float]] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()

    @property
    def command(self) -> str:
        """The command that made it, such as "train"."""
        return str(self.settings.get("command", "train"))

    @property
    def timesteps(self) -> int:
        """Tokens that were written in training, as far as is known."""
        last = max((row.get(TIMESTEPS, 0.0) for row in self.progress), default=0.0)
        return int(max(self.result.get("timesteps", last), last))

    @property
    def has_ended(self) -> bool:
        """Whether it came to its end, and did not go on from there."""
        return bool(self.result) and self.result.get("timesteps", math.inf) >= self.timesteps

    @property
    def missing(self) -> list[str]:
        """What a report of it must do without, in sentences."""
        said = []
        if not self.has_ended:
            said.append(
                f"This run was stopped, or still goes on: it is known up to {self.timesteps:,} "
                "tokens, and was not judged after training."
            )
        if not self.progress:
            said.append("Nothing was logged, so that there are no curves.")
        if self.command == "train" and self.has_ended and not self.texts:
            said.append("The texts before and after training were not kept (no texts.json).")
        if self.command == "train" and not self.about:
            said.append("The machine, the versions and the defaults are not known (no about.json).")
        return said


def load_run(path: Path, name: str | None = None) -> Run:
    """Read the directory of a run.

    Args:
        path: The directory.
        name: What to call it; its own name if None.

    Raises:
        FileNotFoundError: If there is no such directory, or no run in it.
        ValueError: If a file of it cannot be read.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such directory. Give the --output of a run.")
    if not (path / "config.yaml").is_file():
        inside = sorted(each.parent.name for each in path.glob("*/config.yaml"))
        cure = f" Runs in it: {', '.join(inside)}." if inside else ""
        raise FileNotFoundError(
            f"{path} is no run: it holds no config.yaml, as textgym train writes it.{cure}"
        )
    run_file = (path / "config.yaml").read_text(encoding="utf-8")
    try:
        settings = yaml.safe_load(run_file)
    except yaml.YAMLError as error:
        raise ValueError(f"{path / 'config.yaml'} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path / 'config.yaml'}: expected a mapping of settings.")
    progress = path / "progress.csv"
    return Run(
        path,
        path.resolve().name if name is None else name,
        settings,
        run_file,
        progress=read_progress(progress) if progress.is_file() else (),
        result=_read_json(path / "result.json", {}),
        about=_read_json(path / "about.json", {}),
        texts=_read_json(path / "texts.json", {}),
        before=_read_json(path / "before.json", ()),
        samples=_read_lines(path / "samples.jsonl"),
    )


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read some runs, each called by what tells it from the others.

    Raises:
        FileNotFoundError: If one is no run.
        ValueError: If a file cannot be read, or a run is given twice.
    """
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{path} is given more than once.")
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [load_run(path, name) for path, name in zip(paths, names, strict=True)]


def _read_json(path: Path, otherwise: Any) -> Any:
    if not path.is_file():
        return otherwise
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _read_lines(path: Path) -> list[Any]:
    """JSON lines; one that was not written to its end is left out."""
    if not path.is_file():
        return []
    # As bytes: a torn line may end within a character.
    lines = path.read_bytes().splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON lines: {error}") from error
