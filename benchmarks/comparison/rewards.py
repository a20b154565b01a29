"""The rewards that are compared, each with its parameters, its task and how often it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["dialogue", "sums", "choices"]


@dataclass(frozen=True)
class Entry:
    """A reward of the comparison.

    Attributes:
        parameters: Of the reward.
        kind: Its name in the registry; None if the comparison calls it the same.
        task: What it is trained on.
        threshold: The score that counts as learned. None is one standard deviation of the base
            model's texts above their mean.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    task: Task = "dialogue"
    threshold: float | None = None


REWARDS: dict[str, Entry] = {
    # how a text is built
    "length": Entry({"target": 24}),
    "length short": Entry({"target": 6}, kind="length"),
    "eos": Entry(),
    "repetition": Entry(),
    "regex": Entry({"pattern": r"\b[a-z]+ing\b"}),
    "json_valid": Entry(threshold=0.5),
    "balanced": Entry(),
    # which words it uses
    "keywords": Entry({"words": ["you", "love", "good", "time", "think"]}),
    "banned_words": Entry({"words": ["the", "is", "a", "I"]}),
    "readability": Entry(),
    "spelling": Entry(),
    "grammar": Entry(),
    "sentiment": Entry(),
    "fluency": Entry(),
    # how near it comes to what a person answered
    "edit_distance": Entry(),
    "error_rate": Entry(),
    "token_f1": Entry(),
    "bleu": Entry(),
    "chrf": Entry(),
    "rouge": Entry(),
    "cosine_similarity": Entry(),
    # whether it is right
    "exact_match": Entry(task="sums", threshold=0.5),
    "contains": Entry(task="sums", threshold=0.5),
    "numeric_error": Entry(task="sums"),
    "verifier": Entry({"dataset": "chain_sum"}, task="sums", threshold=0.5),
    "multiple_choice": Entry({"choices": 2}, task="choices", threshold=0.5),
}

QUICK = ("length", "keywords", "sentiment")
PILOT = ("sentiment", "keywords", "edit_distance", "length")


def of_task(task: str) -> list[str]:
    """The names of the rewards that are trained on a task, in the order of the table."""
    return [name for name, entry in REWARDS.items() if entry.task == task]


def spec(name: str) -> dict[str, Any]:
    """The reward as environments take it, under the name that it has here."""
    entry = REWARDS[name]
    return {"name": entry.kind or name, **entry.parameters}
