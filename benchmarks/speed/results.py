"""What a section of the report holds, and how figures are kept and shown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
import torch
from rich.table import Table

PACKAGES = ("torch", "transformers", "stable_baselines3", "trl", "gymnasium", "numpy")


@dataclass
class Target:
    """A figure with what was wanted of it.

    Attributes:
        against: What it is compared with.
        case: Under what circumstances.
        measured: The figure, a ratio.
        at_least: The bound that it has to keep.
        aim: What would be worth having.
        upper: Whether the figure should stay below, and not above.
        detail: What the ratio was made of.
    """

    against: str
    case: str
    measured: float
    at_least: float
    aim: float | None = None
    upper: bool = False
    detail: str = ""

    def verdict(self) -> str:
        """Whether bound and aim were met."""
        if not self._keeps(self.at_least):
            return "**missed**"
        return "met, and the aim" if self.aim is not None and self._keeps(self.aim) else "met"

    def cells(self) -> list[str]:
        """What a row of the table shows."""
        sign = "≤" if self.upper else "≥"
        aim = "" if self.aim is None else f"{sign} {self.aim:g}"
        figures = [f"{sign} {self.at_least:g}", aim, f"{self.measured:.3g}"]
        return [self.against, self.case, *figures, self.verdict(), self.detail]

    def _keeps(self, bound: float) -> bool:
        return self.measured <= bound if self.upper else self.measured >= bound


@dataclass
class Figures:
    """A table of figures of which nothing was promised."""

    title: str
    header: list[str]
    body: list[list[str]]


@dataclass
class Section:
    """What one question gave: figures with targets, others, and what is to be known of them."""

    targets: list[Target] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def machine(device: str, dtype: str) -> dict[str, Any]:
    """What was measured on, with what, and when."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device != "cpu" else device,
        "layers compute in": dtype,
        "threads of torch": torch.get_num_threads(),
        "load average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES if find_spec(name)},
        "date": time.strftime("%Y-%m-%d"),
    }


def markdown(everything: dict[str, Any]) -> str:
    """The report of some sections, as they are kept in the results file.

    Args:
        everything: For each section by name what it holds, and under `machine` what it was
            measured on.
    """
    lines = ["# Speed of TokenPPO", ""]
    lines += [f"{key}: {value}  " for key, value in _machines(everything)]
    for figures, notes in _parts(everything):
        lines += ["", f"## {figures.title}", "", "| " + " | ".join(figures.header) + " |"]
        lines += ["|--:" * len(figures.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in figures.body]
        lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def show(everything: dict[str, Any]) -> None:
    """Print the same tables."""
    for figures, notes in _parts(everything):
        table = Table(title=figures.title)
        for column in figures.header:
            table.add_column(column, justify="right")
        for row in figures.body:
            table.add_row(*row)
        rich.print(table, *notes, sep="\n")


def _parts(everything: dict[str, Any]) -> Iterator[tuple[Figures, list[str]]]:
    """Tables, and the notes below each: the figures with targets first, then by section."""
    targets = [Target(**target) for entry in everything.values() for target in entry["targets"]]
    if targets:
        header = ["against", "case", "at least", "worth aiming for", "measured", "", "of what"]
        yield Figures("Figures with a target", header, [target.cells() for target in targets]), []
    for entry in everything.values():
        *first, last = (Figures(**figures) for figures in entry["figures"])
        for figures in first:
            yield figures, []
        yield last, entry["notes"]


def _machines(everything: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each fact once, or by section where they were measured under different circumstances."""
    for key in dict.fromkeys(key for entry in everything.values() for key in entry["machine"]):
        values = {name: str(entry["machine"].get(key)) for name, entry in everything.items()}
        if len(set(values.values())) == 1:
            yield key, next(iter(values.values()))
        else:
            yield key, "; ".join(f"{value} ({name})" for name, value in values.items())
