"""The page, the table and the picture of the long runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator

from endurance.footprint import Footprint
from endurance.judgement import MEMORY_MB, OBJECTS, early, growth
from endurance.runs import Course

matplotlib.use("agg")

COLOR, BOUND = "#12836b", "0.45"


class Panel(NamedTuple):
    """What a column of the picture shows.

    Attributes:
        label: What it is, with the unit.
        name: The figure of a footprint.
        bound: Show how it changed from its median in the second fifth of the run, and what would be
            too much; None to show the figure itself, from zero.
    """

    label: str
    name: str
    bound: float | None = None


PANELS = (
    Panel("resident memory, MB", "resident_mb"),
    Panel("its growth, MB", "resident_mb", MEMORY_MB),
    Panel("growth of objects", "objects", OBJECTS),
    Panel("growth of blocks of memory", "blocks", 10 * OBJECTS),
    Panel("open files", "files"),
    Panel("threads", "threads"),
)


def write_csv(courses: Sequence[Course], path: Path) -> None:
    """Every footprint, one a line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *Footprint._fields])
        for course in courses:
            writer.writerows([course.name, *footprint] for footprint in course.footprints)


def markdown(courses: Sequence[Course], machine: Mapping[str, Any], picture: str) -> str:
    """The page."""
    lines = ["# Long runs", ""]
    lines += [f"{key}: {value}  " for key, value in machine.items()]
    lines += [
        "",
        "What each process held in the second fifth of its run, and by how much more in the last "
        "fifth (medians of both). Each run is a process of its own. Flat is what grows by no open "
        f"file, no thread, at most {MEMORY_MB:g} MB, {OBJECTS:,} objects and {10 * OBJECTS:,} "
        "blocks of memory. The small step in the middle is the watch's own, which counts kinds of "
        "objects there.",
        "",
        "| run | done | minutes | memory, MB | open files | threads | objects | blocks | |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|:--|",
    ]
    lines += [_row(course) for course in courses]
    lines += ["", f"![what the processes held]({picture})", ""]
    for course in courses:
        if course.written:
            sizes = sorted(course.written.items(), key=lambda item: -item[1])
            files = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes if size >= 5000)
            lines += [f"Files of {course.name}, MB: {files}.", ""]
        more = ", ".join(f"{kind} {number:+,}" for kind, number in course.grown)
        lines += [f"Objects of {course.name}, the end against the middle: {more or 'none'}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def plot(courses: Sequence[Course], path: Path) -> None:
    """A row of panels for each run; the dotted line is what would be too much."""
    figure, axes = plt.subplots(
        len(courses),
        len(PANELS),
        figsize=(2.5 * len(PANELS), 1.75 * len(courses) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for row, course in zip(axes, courses, strict=True):
        done = [footprint.done for footprint in course.footprints]
        for axis, panel in zip(row, PANELS, strict=True):
            values = [float(getattr(f, panel.name)) for f in course.footprints]
            if panel.bound is not None:
                values = [value - early(course, panel.name) for value in values]
                axis.axhline(panel.bound, color=BOUND, lw=0.8, ls=":")
                axis.set_ylim(-2.2 * panel.bound, 1.3 * panel.bound)
            else:
                axis.set_ylim(0, 1.25 * max(values))
            axis.plot(done, values, color=COLOR, lw=1.4)
            axis.set_xlim(0, done[-1])
            axis.tick_params(labelsize=7)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            for of_axis in (axis.xaxis, axis.yaxis):
                of_axis.set_major_formatter(FuncFormatter(_in_short))
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", lw=0.4, alpha=0.5)
        row[0].set_title(f"{course.name} ({course.what})", loc="left", fontsize=9, weight="bold")
    above = {"xytext": (0, 20), "xycoords": "axes fraction", "textcoords": "offset points"}
    for axis, panel in zip(axes[0], PANELS, strict=True):
        axis.annotate(panel.label, (0, 1), fontsize=9, color="0.3", **above)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _in_short(number: float, _: int) -> str:
    if abs(number) >= 1e6:
        return f"{number / 1e6:g}M"
    return f"{number / 1000:g}k" if abs(number) >= 1000 else f"{number:g}"


def _row(course: Course) -> str:
    grown, first = growth(course), course.footprints[len(course.footprints) // 3]
    cells = [course.name, f"{course.footprints[-1].done:,} {course.what}"]
    cells.append(f"{course.footprints[-1].seconds / 60:.1f}")
    cells.append(f"{first.resident_mb:.0f} {grown.resident_mb:+.1f}")
    cells.append(f"{first.files} {grown.files:+g}")
    cells.append(f"{first.threads} {grown.threads:+g}")
    cells.append(f"{first.objects:,} {grown.objects:+,.0f}")
    cells.append(f"{first.blocks:,} {grown.blocks:+,.0f}")
    cells.append("flat" if grown.is_flat else "**grows**")
    return f"| {' | '.join(cells)} |"
