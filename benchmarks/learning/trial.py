"""What one run of the comparison is told, and what is measured on its way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from agents.config import RunConfig

Trainer = Literal["textgym", "trl"]


@dataclass(frozen=True)
class Trial:
    """What one run is told.

    Attributes:
        part: The part of the benchmark.
        arm: As tables call it.
        seed: Of prompts and sampling.
        budget: Tokens to write in training.
        settings: Of `RunConfig`, as JSON, so that it fits into a cell of a table.
        trainer: Who trains. TRL takes of the settings what it has.
        split: Whose prompts the model is judged on.
        points: How often it is judged; once more before training.
        texts_at_ends: Held-out texts on which it is judged before training and at its end.
        texts_between: Held-out texts on which it is judged on the way.
        greedy: Whether these are the likeliest ones instead of drawn.
        temperature: At which they are drawn otherwise.
    """

    part: str
    arm: str
    seed: int
    budget: int
    settings: str
    trainer: Trainer = "textgym"
    split: str = "test"
    points: int = 10
    texts_at_ends: int = 320
    texts_between: int = 80
    greedy: bool = False
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"{self.part}: {self.arm}, seed {self.seed}"

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        given: dict[str, Any] = json.loads(self.settings)
        own = {"seed": self.seed, "total_timesteps": self.budget, "device": "cpu"}
        return RunConfig(**_as_tuples(given), **own)


@dataclass(frozen=True)
class Point:
    """A look at what a model writes on held-out prompts.

    Attributes:
        tokens: Written in training until then, all of which have been learned from.
        seconds: Of processor time that training took until then, in all threads.
        wall: By the clock on the wall. In neither is what it takes to judge.
        score: Mean score of the texts.
        std: Their standard deviation.
        texts: How many.
        kl: What they are from the model before training, in nats a text; NaN if they are greedy.
        length: Their mean length in tokens.
        trained: Mean score of the texts that training has written since the point before, as it
            draws them; NaN if there are none.
    """

    tokens: int
    seconds: float
    wall: float
    score: float
    std: float
    texts: int
    kl: float
    length: float
    trained: float


def settings(**given: Any) -> str:
    """Settings of `RunConfig` as a trial has them."""
    return json.dumps(given, sort_keys=True)


def _as_tuples(given: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only, and `RunConfig` has none."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
