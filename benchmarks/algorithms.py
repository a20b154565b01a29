"""Which algorithm learns how fast, by tokens and by seconds, and against TRL's GRPO?

    python benchmarks/algorithms.py --part pilot         # learning rates: 10 minutes on 2 cores
    python benchmarks/algorithms.py                      # all other parts: 45 minutes
    python benchmarks/algorithms.py --part algorithms    # immediate and delayed: 13 minutes
    python benchmarks/algorithms.py --part trl           # against TRL's GRPO: 18 minutes
    python benchmarks/algorithms.py --quick              # a look, with too few tokens to learn
    python benchmarks/algorithms.py --report             # tables and pictures again

Parts: `algorithms`, `stock` (Stable-Baselines3's own, for their seconds), `vocabulary` (Q-learning
on a reduced vocabulary), `backbones` (recurrent networks from scratch), `temperatures` (exploring
first), `trl`, and `pilot`.

Written are `benchmarks/results/algorithms.csv` (a row an arm), `_curves.csv` (a row a point of a
run), `.md` and a picture a part; of the pilot `algorithms_pilot.md` and `_pilot_curves.csv`. Runs
are kept as soon as they are finished: a benchmark that was stopped goes on where it was; two at a
time would overwrite what the other has measured. Runs whose settings are not those of now, such as
a learning rate that was another default, are left in the file, and out of the tables.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of each process, before torch counts the cores
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from comparison.pool import carry_out, clock, executor, say
from comparison.rows import Row, write_rows
from learning import arms, plots, report
from learning.curves import Curves, curves
from learning.parts import PARTS, Part, at_rate, pilot
from learning.records import Records
from learning.run import train
from learning.trial import Point, Trial
from speed.results import machine

from textgym.files import atomic_write

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path("runs", "algorithms_quick")
NAME = "algorithms"
QUICK_BUDGET, QUICK_SEEDS = 4_096, 2


def main() -> None:
    """Measure what is missing, then write tables and pictures of all there is."""
    arguments = parsed()
    began = time.perf_counter()
    records = Records(arguments.output / f"{NAME}_curves.csv")
    pilot_records = Records(arguments.output / f"{NAME}_pilot_curves.csv")
    failures: list[str] = []
    if not arguments.report:
        for name in arguments.part:
            if name == "pilot":
                failures += measure(trials_of(name, arguments), pilot_records, alone=False)
            else:
                alone = PARTS[name].alone
                failures += measure(trials_of(name, arguments), records, alone=alone)
    write_pilot(trials_of("pilot", arguments), pilot_records, arguments.output)
    write(records, arguments)
    say(f"{clock(time.perf_counter() - began)} in all")
    if failures:
        sys.exit("failed, and to be tried again by the same command:\n" + "\n".join(failures))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=[*PARTS, "pilot"], default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help=f"few and short, in {QUICK_RESULTS}")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, help="runs of each arm (default: 3)")
    parser.add_argument("--tokens", type=int, help="of a run (default: those of each part)")
    parser.add_argument("--output", type=Path, help="directory of the results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens = arguments.tokens or QUICK_BUDGET
        arguments.seeds = arguments.seeds or QUICK_SEEDS
    arguments.seeds = arguments.seeds or 3
    arguments.output = arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)
    return arguments


def trials_of(name: str, arguments: argparse.Namespace) -> list[Trial]:
    """The runs of a part."""
    if name == "pilot":
        return pilot(arguments.tokens)
    return PARTS[name].trials(arguments.seeds, arguments.tokens)


def measure(trials: Sequence[Trial], records: Records, *, alone: bool) -> list[str]:
    """Carry out the runs that are not there yet, and return what went wrong."""
    missing = [trial for trial in trials if not records.has(trial)]
    if len(missing) < len(trials):
        say(f"{len(trials) - len(missing)} of {len(trials)} runs are there already")

    def keep(trial: Trial, points: list[Point]) -> str:
        records.add(trial, points)
        first, last = points[0], points[-1]
        return (
            f"{first.score:.3f} → [bold]{last.score:.3f}[/], KL {last.kl:.1f}, "
            f"{last.wall if alone else last.seconds:.0f} s"
        )

    cores = os.cpu_count() or 1
    with executor(1, cores) if alone else executor(cores) as pool:
        return carry_out(missing, train, keep, pool)


def write(records: Records, arguments: argparse.Namespace) -> None:
    """Tables and pictures of the runs with the settings of now."""
    lines = ["# Which algorithm learns how fast?", ""]
    rows: list[Row] = []
    generator = np.random.default_rng(0)
    names = []
    for part in PARTS.values():
        found = found_of(part, records, arguments)
        if not found:
            continue
        if part.only_speed:
            lines += report.speeds(part, found)
            continue
        names.append(part.name)
        rows += report.table(part, found)
        lines += report.described(part, found, NAME)
        lines += compared(part, found, generator)
        panels = panels_of(part, found)
        costs = report.costs(part)
        plots.learning_curves(panels, costs, arguments.output / f"{NAME}_{part.name}.png")
    if len(lines) == 2:
        return
    lines += report.notes(names)
    lines += ["## Machine", ""]
    about = machine("cpu", "float32") | {
        "threads of torch": f"1 in each of {os.cpu_count()} processes; all against TRL"
    }
    lines += [f"- {key}: {value}" for key, value in about.items()]
    write_rows(arguments.output / f"{NAME}.csv", rows)
    atomic_write(arguments.output / f"{NAME}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def found_of(part: Part, records: Records, arguments: argparse.Namespace) -> list[Curves]:
    """The curves of the arms that have runs."""
    by_arm: dict[str, list[list[Row]]] = {}
    for trial in trials_of(part.name, arguments):
        if records.has(trial):
            by_arm.setdefault(trial.arm, []).append(records.points(trial))
    return [curves(arm.name, by_arm[arm.name]) for arm in part.arms if arm.name in by_arm]


def compared(part: Part, found: Sequence[Curves], generator: np.random.Generator) -> list[str]:
    """How many times as much one takes as another."""
    by_name = {curve.arm: curve for curve in found}
    if part.name == "algorithms":
        return report.timings(found, generator)
    if part.name == "vocabulary":
        return [
            "Q-learning knows no penalty for leaving the base model: what to compare it with are "
            "those without one.",
            "",
        ]
    if part.name == "temperatures":
        return report.in_training(found)
    if part.name != "trl":
        return []
    lines: list[str] = []
    shown: dict[str, list[str]] = {}
    for rate in (*arms.SAME_RATES, None):
        title = "Each at its own learning rate" if rate is None else f"All at a rate of {rate:g}"
        group = [arm.name for arm in at_rate(rate) if arm.name in by_name]
        same = [other for other, names in shown.items() if names == group]
        if same:
            lines += [f"### {title}", "", f"The same as: {same[0].lower()}.", ""]
        elif group:
            shown[title] = group
            lines += report.against_trl([by_name[name] for name in group], title, generator)
    return lines


def panels_of(part: Part, found: Sequence[Curves]) -> dict[str, Sequence[Curves]]:
    """The arms of each panel of the picture, by its title."""
    if part.name == "trl":
        by_name = {curve.arm: curve for curve in found}
        groups = {
            f"all at {rate:g}": [by_name[arm.name] for arm in at_rate(rate) if arm.name in by_name]
            for rate in arms.SAME_RATES
        }
        return {title: group for title, group in groups.items() if group}
    if part.name != "algorithms":
        return {part.title: found}
    by_timing: dict[str, list[Curves]] = {}
    for curve in found:
        name, _, timing = curve.arm.rpartition(", ")
        by_timing.setdefault(timing, []).append(replace(curve, arm=name))
    return dict(by_timing)


def write_pilot(trials: Sequence[Trial], records: Records, output: Path) -> None:
    """The pilot's table, if there is something in it."""
    points = {trial: records.points(trial) for trial in trials if records.has(trial)}
    if points:
        text = "\n".join(report.pilot(trials, points))
        atomic_write(output / f"{NAME}_pilot.md", text)
        print(text)


if __name__ == "__main__":
    main()
