"""Runs that repeat one another, taken together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.reporting.run import Run

MOST_TELLING = 2
"""Settings in the name of a group, at most."""

REPEATED = frozenset(
    {
        "seed",
        "checkpoint_every",
        "keep_checkpoints",
        "loggers",
        "quiet",
        "device",
        "micro_batch_tokens",
        "gradient_checkpointing",
    }
)
"""Settings in which runs may differ that repeat one another.

The seed is what a repetition changes. The others say what a run keeps and shows, and where and in
what portions it computes: they round sums in another way at most, and so do no more than a seed.
"""

_UNSET = object()


@dataclass(frozen=True)
class Group:
    """Runs that repeat one another.

    Attributes:
        name: What tells it from the other groups of a report.
        runs: Its runs.
    """

    name: str
    runs: Sequence[Run]


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs whose settings are the same but for `REPEATED`, in the order of their first ones.

    A group is called by the settings that tell it from the others, if these are few, and by its
    runs otherwise.
    """
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        told = json.dumps(_telling(run.settings), sort_keys=True, default=str)
        by_settings.setdefault(told, []).append(run)
    members = list(by_settings.values())
    telling = differing([_telling(of_group[0].settings) for of_group in members])
    if 0 < len(telling) <= MOST_TELLING:
        names = [_told(of_group[0], telling) for of_group in members]
    else:
        names = [", ".join(run.name for run in of_group) for of_group in members]
    return [Group(*named) for named in zip(names, members, strict=True)]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the settings that are not the same in all of some runs."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [
        name
        for name in names
        if any(each.get(name, _UNSET) != settings[0].get(name, _UNSET) for each in settings)
    ]


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in REPEATED}


def _told(run: Run, telling: Sequence[str]) -> str:
    values = [worded(run.settings[name]) if name in run.settings else "unset" for name in telling]
    return ", ".join(f"{name} {value}" for name, value in zip(telling, values, strict=True))


def worded(value: Any) -> str:
    """A setting as YAML has it, in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
