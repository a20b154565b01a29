"""How much faster is `TokenPPO` than other ways of doing the same, and where does its time go?

    python benchmarks/throughput.py                      # everything, about twenty minutes
    python benchmarks/throughput.py --only trl generate  # some sections, the others stay
    python benchmarks/throughput.py --quick              # a smoke run, which writes nothing

writes `benchmarks/results/throughput.json` and `.md`. Every comparison is a ratio: both sides run
in this process in turn, from the same weights, on the same prompts and lengths, with as many
passes over as large batches, in float32 and with the threads that torch takes by default. All are
warmed up first, and medians count. The other sides are stock Stable-Baselines3, TRL (which needs
`pip install trl`) and bare `model.generate`. What a section does is said in its file in
`benchmarks/speed/`.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
from speed import (
    against_generate,
    against_stock,
    against_trl,
    buffer,
    compute,
    growth,
    memory,
    shares,
)
from speed.against_stock import Case
from speed.results import Section, machine, markdown, show
from speed.workload import Workload

RESULTS = Path(__file__).parent / "results"

FIXED, VARIED = Workload(64), Workload(64, mean=16)
WIDE_VOCABULARY = Workload(64, vocabulary=50_257, layers=2, width=64, feed_forward=172)

SECTIONS: dict[str, Callable[[], Section]] = {
    "stock": lambda: against_stock.measure(
        [
            Case(Workload(16), 256, part=16, targets=(50, 100)),
            Case(Workload(16), 64, part=64),
            Case(Workload(16, new=256), 256, part=16, targets=(150, 400)),
        ],
        rounds=2,
    ),
    "trl": lambda: against_trl.measure({FIXED: (1.2, 2), VARIED: (2.5, 4)}, rounds=5, iterations=3),
    "generate": lambda: against_generate.measure(
        {FIXED: (0.95, 1.5), VARIED: (2.5, 4)}, rounds=10, iterations=3
    ),
    "compute": lambda: compute.measure([Workload(rows) for rows in (1, 16, 64, 256)], iterations=5),
    "shares": lambda: shares.measure(rows=64, iterations=10, at_most=15),
    "growth": lambda: growth.measure(
        Workload(32, prompt=32, new=32), doublings=3, iterations=9, at_most=1.1
    ),
    "buffer": lambda: buffer.measure(Workload(16), at_most=64),
    "memory": lambda: memory.measure(WIDE_VOCABULARY, at_most=0.25),
}

QUICK: dict[str, Callable[[], Section]] = {
    "stock": lambda: against_stock.measure(
        [
            Case(Workload(4, new=16), 32, part=8, targets=(50, 100)),
            Case(Workload(4, new=16), 16, part=2),
        ],
        rounds=1,
    ),
    "trl": lambda: against_trl.measure(
        {Workload(8, new=16, mean=4): (2.5, 4)}, rounds=1, iterations=2
    ),
    "generate": lambda: against_generate.measure(
        {Workload(8, new=16, mean=4): (2.5, 4)}, rounds=1, iterations=2
    ),
    "compute": lambda: compute.measure([Workload(8, new=16)], iterations=1),
    "shares": lambda: shares.measure(rows=8, iterations=1, at_most=15),
    "growth": lambda: growth.measure(
        Workload(4, prompt=8, new=8), doublings=1, iterations=1, at_most=1.1
    ),
    "buffer": lambda: buffer.measure(Workload(2, new=8), at_most=64),
    "memory": lambda: memory.measure(
        Workload(8, new=16, vocabulary=10_000, layers=1, width=32, feed_forward=32), at_most=0.25
    ),
}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the results")
    arguments = parser.parse_args()
    if "trl" in arguments.only and find_spec("trl") is None:
        parser.error("section trl needs TRL: pip install trl, or choose others with --only")
    warnings.simplefilter("ignore", FutureWarning)  # of TRL, about names of transformers

    everything: dict[str, Any] = {}
    for name in arguments.only:
        rich.print(f"[bold]{name}[/bold]")
        where = machine()
        section = (QUICK if arguments.quick else SECTIONS)[name]()
        everything[name] = {"machine": where, **asdict(section)}
        if not arguments.quick:  # what was measured is kept, even if a later section fails
            save(everything, arguments.output)
    show(everything)
    if arguments.quick:
        rich.print(
            "[bold]These sizes say nothing about speed: they show that all of it runs.[/bold]"
        )


def save(everything: dict[str, Any], directory: Path) -> None:
    """Write sections, and keep those that were measured at another time."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "throughput.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {**before, **everything}
    merged = {name: known[name] for name in SECTIONS if name in known}
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    (directory / "throughput.md").write_text(markdown(merged), encoding="utf-8")


if __name__ == "__main__":
    main()
