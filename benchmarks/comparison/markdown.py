"""Pieces of Markdown."""

from __future__ import annotations

import numpy as np

from comparison.analysis import CONTROL, Result
from comparison.statistics import Array


def picture(stem: str, name: str, text: str) -> list[str]:
    """A picture beside the report, with an empty line after it."""
    return [f"![{text}]({stem}_{name}.png)", ""]


def named(name: str) -> str:
    """A reward as tables call it."""
    return f"{name} (control)" if name in CONTROL else name


def counted(count: int, what: str) -> str:
    """So many of something."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def spread(values: Array) -> str:
    """Mean and standard deviation over seeds."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def ratio(result: Result) -> str:
    """Tokens that delayed needs for each of immediate; marked if it is a bound."""
    immediate, delayed = result.comparison.learned
    bound = "≥ " if not delayed else "≤ " if not immediate else ""
    return f"{bound}{result.comparison.smaller.ratio:.2f}"


def number(value: float) -> str:
    """A whole number; a dash if it is infinite."""
    return f"{value:,.0f}" if np.isfinite(value) else "—"


def head(*cells: str) -> list[str]:
    """The first two lines of a table; all but its first column are numbers."""
    return [row(*cells), "|" + "|".join("--:" if i else "---" for i in range(len(cells))) + "|"]


def row(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"
