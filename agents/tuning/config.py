"""The settings of a sweep: those of a training, and how to search among them."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from agents.algorithms.by_name import ALGORITHMS
from agents.config import RunConfig
from agents.config_checks import check, foreign_to
from agents.tuning.space import Choice, Dimension, parse_space
from agents.typed import check_types
from agents.validation import VALIDATION

_DRAWS = 32
"""How often a value is tried with others by chance, before it is said to go with none."""

_MOST = 100_000
"""Combinations that are counted; where there are more, a search is none of all."""


@dataclass(frozen=True)
class TuneConfig(RunConfig):
    """Search for the settings with which a language model learns best.

    Each trial is a run of its own; what is not searched is given as for textgym train.
    """

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the sweep, which must not hold one yet. None makes a new one under runs/."""
    search: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=VALUES")
    ] = ()
    """A setting of textgym train and what to try; give it once for each. Values between commas, or
    between bars where they have commas of their own: algo=ppo,grpo. Ranges: n_steps=int:16:64,
    gamma=float:0.9:1, learning_rate=log:1e-5:1e-3 (evenly by the logarithm). Beside --config it is
    added to what is searched there."""
    trials: int = 20
    """How many combinations to try. Where all settings have lists of values, and no more
    combinations than this, each is tried once."""
    metric: str = VALIDATION
    """Column of progress.csv whose largest value is the score of a trial."""
    prune: bool = True
    """End trials that do worse than half of those before them after as many tokens."""
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Of a Ray cluster, or "auto" for the one of this machine; its machines must share --output.
    None starts a Ray here, which ends with the sweep."""
    cpus_per_trial: int = 1
    """CPUs of a trial, which has as many threads."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; trials with a part of one, such as 0.25, share it."""
    at_once: int | None = None
    """Trials side by side; None for as many as there is room for."""
    retries: int = 2
    """How often a trial goes on from its last checkpoint after its worker died."""

    def __post_init__(self) -> None:
        # What RunConfig checks depends on what a trial draws; see run_config.
        check_types(self)
        for name in ("trials", "at_once", "cpus_per_trial"):
            value = getattr(self, name)
            check(name, value, value is None or value > 0, "above 0")
        for name in ("retries", "gpus_per_trial"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "0 or above")
        gpus = self.gpus_per_trial
        check("gpus_per_trial", gpus, gpus <= 1 or gpus.is_integer(), "at most 1, or whole")
        if self.shard:
            raise ValueError(
                "shard=True is for the processes of a launcher, and a trial is one process. Leave "
                "it out."
            )
        if "stdout" in self.loggers:
            raise ValueError(
                "loggers: nobody sees the standard output of a trial. Give log in place of stdout: "
                "the same in a file of each trial."
            )
        self._check_given()
        for example in self.examples:  # which also says early what goes with nothing
            self._check_device(example.device)
            if self.metric.startswith("validation/") and example.eval_every == 0:
                raise ValueError(
                    f"metric={self.metric!r} is measured on validation prompts, and eval_every=0 "
                    "looks at none. Leave that out, or give another metric."
                )

    @cached_property
    def space(self) -> tuple[Dimension, ...]:
        """What is searched, the algorithm first."""
        return parse_space(self.search)

    @cached_property
    def grid(self) -> list[dict[str, str]] | None:
        """All different trials, as they are typed; None if there are more than shall be tried."""
        choices = [each for each in self.space if isinstance(each, Choice)]
        if len(choices) < len(self.space) or _count(choices) > _MOST:
            return None
        found: dict[tuple[tuple[str, str], ...], None] = {}
        for texts in product(*(choice.texts for choice in choices)):
            drawn = dict(zip([choice.name for choice in choices], texts, strict=True))
            foreign = foreign_to(drawn.get("algo", self.algo))
            found[tuple((name, text) for name, text in drawn.items() if name not in foreign)] = None
        return [dict(each) for each in found] if len(found) <= self.trials else None

    def check_not_given(self, names: Collection[str]) -> None:
        """Raise if a setting is searched for which a person has typed a value, too.

        Args:
            names: The settings that were typed. Those of a run file are a beginning, and a search
                comes over them.
        """
        for dimension in self.space:
            if dimension.name in names:
                option = dimension.name.replace("_", "-")
                raise ValueError(f"{dimension.name} is searched; leave out --{option}.")

    @property
    def look_every(self) -> int:
        """Tokens between two reports of a trial, by which it may be pruned."""
        return self.validate_every or max(self.total_timesteps // 5, 1)

    def as_data(self) -> dict[str, Any]:
        """The settings for a file; which of them an algorithm takes is up to the trials."""
        return asdict(self)

    def run_config(self, values: Mapping[str, Any], output: Path | None = None) -> RunConfig:
        """The settings of a trial.

        Where algorithms are searched, those settings are left out that its own does not take.

        Args:
            values: What it draws.
            output: Its directory.

        Raises:
            TypeError: If a setting is of another type.
            ValueError: If settings do not go together.
        """
        settings = {field.name: getattr(self, field.name) for field in fields(RunConfig)}
        settings.update(values, output=output, quiet=False)
        if "algo" in values:
            for name in foreign_to(settings["algo"]):
                settings[name] = RunConfig.__dataclass_fields__[name].default
        return RunConfig(**settings)

    @property
    def _algorithms(self) -> tuple[str, ...]:
        """The algorithms that are searched, or the one that is not."""
        searched = [each.ends for each in self.space if each.name == "algo"]
        return tuple(map(str, *searched)) if searched else (self.algo,)

    @cached_property
    def examples(self) -> list[RunConfig]:
        """Trials such that every value that is searched, or both ends of a range, are in one.

        Raises:
            ValueError: If a value goes with none of the others.
        """
        chance = random.Random(0)
        return [
            self._example(dimension.name, value, chance)
            for dimension in self.space
            for value in dimension.ends
        ]

    def _check_device(self, name: str) -> None:
        """Raise if trials will not have a device of that name, wherever they run."""
        if name == "auto":
            return
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"device={name!r} is none that torch knows.") from error
        if device.type != "cuda":
            return
        # Ray numbers the GPUs of a trial from 0 on, whichever of a machine's they are.
        wanted = (device.index or 0) + 1
        if not self.gpus_per_trial:
            raise ValueError(
                f"device={name!r} wants a GPU, and a trial has none: --gpus-per-trial 1"
            )
        if wanted > max(self.gpus_per_trial, 1):
            raise ValueError(
                f"device={name!r} is GPU number {wanted} of a trial, which has "
                f"{self.gpus_per_trial:g}. Give device=cuda: Ray chooses which GPU that is."
            )

    def _check_given(self) -> None:
        """Raise if a setting that is not searched is for none of the algorithms."""
        for field in fields(RunConfig):
            value = getattr(self, field.name)
            given = value != field.default
            if given and all(field.name in foreign_to(algo) for algo in self._algorithms):
                raise ValueError(
                    f"{field.name}={value!r}: {', '.join(self._algorithms)} do not take it. Leave "
                    "it out."
                )

    def _example(self, name: str, value: Any, chance: random.Random) -> RunConfig:
        refused: Exception | None = None
        for _ in range(_DRAWS):
            drawn: dict[str, Any] = {each.name: each.draw(chance) for each in self.space}
            drawn[name] = value
            algo = drawn.get("algo", self.algo)
            if name in foreign_to(algo):
                continue
            try:
                return self.run_config(drawn)
            except (TypeError, ValueError) as error:
                refused = error
        if refused is None:
            takers = [algo for algo in ALGORITHMS if name not in foreign_to(algo)]
            raise ValueError(
                f"--search {name}: {self.algo} does not take it. It is for --algo or --search "
                f"algo={','.join(takers)}."
            )
        raise ValueError(f"--search {name}, with {value!r}: {refused}") from refused


def _count(choices: Sequence[Choice]) -> int:
    return prod(len(choice.texts) for choice in choices)
