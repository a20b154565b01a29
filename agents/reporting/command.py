"""`textgym report`: one page of one run or of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agents.reporting.page import page
from agents.reporting.run import load_runs
from textgym.files import atomic_write


@dataclass(frozen=True)
class ReportConfig:
    """Make one page of runs: curves, texts before and after token by token, settings."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Directories of runs. Those that differ only in their seed, or in what no result depends on,
    share a curve."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page, which loads nothing and may be passed on; None for report.html in the run."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give the directory of a run: textgym report runs/NAME")
        if self.output is None and len(self.runs) > 1:
            raise ValueError("a page of several runs wants a place: --output report.html")
        if self.output is not None and self.output.is_dir():
            raise ValueError(f"--output {self.output} is a directory; give a file.")


def report(config: ReportConfig, console: Console | None = None) -> Path:
    """Write the page, and say where it is; returns its path.

    Raises:
        FileNotFoundError: If a directory holds no run.
        ValueError: If a file of a run cannot be read.
    """
    runs = load_runs(config.runs)
    path = config.output or config.runs[0] / "report.html"
    atomic_write(path, page(runs))
    console = console or Console()
    for run in runs:
        for sentence in run.missing:
            console.print(f"{run.name}: {sentence}", style="dim", markup=False, soft_wrap=True)
    console.print(f"report   {path}", markup=False, highlight=False, soft_wrap=True)
    return path
