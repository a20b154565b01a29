"""Models as people name them: where each lies, and which run it comes from."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agents.config import RunConfig
from agents.models import model_source
from agents.run_directory import RunDirectory
from agents.run_file import load_config, read_settings
from agents.supervised.config import SFTConfig
from agents.validation import Best
from textgym import models
from textgym.shell import program


@dataclass(frozen=True)
class Candidate:
    """A model that was named.

    Attributes:
        name: What it was asked for by, with a number if that was asked for more than once.
        source: Where it is: a name, a directory in Hugging Face layout, or a hub id.
        run: The settings of the run that it comes from; None if it comes from none.
    """

    name: str
    source: str
    run: RunConfig | None = None

    def is_at(self, source: str) -> bool:
        """Whether another source is this model."""
        places = [model_source(self.source), model_source(source)]
        if all(place is not None and os.path.isdir(place) for place in places):
            places = [os.path.realpath(place) for place in places if place is not None]
        return places[0] == places[1]


def find_all(names: Sequence[str]) -> list[Candidate]:
    """The models of those names, each called differently; see `find`."""
    candidates, seen = [], Counter[str]()
    for name in names:
        seen[name] += 1
        called = f"{name} ({seen[name]})" if names.count(name) > 1 else name
        candidates.append(replace(find(name), name=called))
    return candidates


def find(name: str) -> Candidate:
    """The model of a name, a directory, a file, a hub id, or a run, which stands for its `model/`.

    A name comes before a directory of that name, which `./name` means.

    Raises:
        FileNotFoundError: If a run has no model.
        ValueError: If a run's settings cannot be read.
    """
    path = Path(name).expanduser()
    if not name or name in models.names() or not path.is_dir():
        return Candidate(name, name)
    run = RunDirectory(path)
    if run.config.is_file():
        if not run.model.is_dir():
            command = read_settings(run.config).get("command", "train")
            raise FileNotFoundError(
                f"{name} is a run without a {run.model.name}/: it was stopped before it wrote "
                f"one. Go on with it: {program()} {command} --resume {shlex.quote(name)}"
            )
        return Candidate(name, str(run.model), _settings(run))
    run = RunDirectory(path.resolve().parent)
    of_run = run.config.is_file() and path.resolve().name in (run.model.name, run.adapter.name)
    return Candidate(name, str(path), _settings(run) if of_run else None)


def _settings(run: RunDirectory) -> RunConfig:
    """The settings of a run, with the template that was found best in it."""
    if read_settings(run.config).get("command") == "sft":
        return load_config(run.config, SFTConfig, "sft").as_run()
    config = load_config(run.config)
    best = Best.load(run.best) if run.best.is_file() else None
    found = None if best is None else best.templates
    return config if found is None else replace(config, templates=found)
