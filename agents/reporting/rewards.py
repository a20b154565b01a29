"""What a run pays for, in the words of the terminal: `sentiment + 0.1 length`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.reporting.run import Run
from agents.wording import rewards_in_words
from textgym.arguments import is_number


def reward_in_words(run: Run) -> str:
    """The rewards of a run and their weights; as logged where the task brought its own."""
    spec = run.settings.get("reward")
    weights = _logged(run) if spec is None else _weights(spec)
    return rewards_in_words(weights) or "the task's own"


def _logged(run: Run) -> dict[str, float]:
    first = run.progress[0] if run.progress else {}
    names = [
        column.removeprefix("rewards/").removesuffix("/mean")
        for column in first
        if column.startswith("rewards/") and column.endswith("/mean")
    ]
    return {name: first.get(f"rewards/{name}/weight", 1.0) for name in names}


def _weights(spec: Any) -> dict[str, float]:
    """The weights of the rewards that a spec names, as `textgym.rewards.make` reads it."""
    if isinstance(spec, Mapping) and "name" not in spec:
        return {
            str(key) if isinstance(value, str) else _label(key): _weight(value)
            for key, value in spec.items()
        }
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return {name: weight for each in spec for name, weight in _weights(each).items()}
    return {_label(spec["name"] if isinstance(spec, Mapping) else spec): _weight(spec)}


def _label(target: Any) -> str:
    return str(target).rpartition(":")[2]


def _weight(spec: Any) -> float:
    weight = spec.get("weight", 1.0) if isinstance(spec, Mapping) else spec
    return float(weight) if is_number(weight) else 1.0
