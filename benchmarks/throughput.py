"""How much faster is `TokenPPO` than other ways of doing the same, and where does its time go?

    python benchmarks/throughput.py                      # everything, about a quarter of an hour
    python benchmarks/throughput.py --only trl generate  # some sections, the others stay
    python benchmarks/throughput.py --quick              # a smoke run, which writes nothing
    python benchmarks/throughput.py --device cuda --dtype bfloat16

writes `benchmarks/results/throughput.json` and `.md` (`throughput_cuda_bfloat16` and so on for
others than the CPU and float32). Every comparison is a ratio: both sides run in this process in
turn, from the same weights, on the same prompts and lengths, with as many passes over as large
batches, in the same number type and with the threads that torch takes by default. All are warmed up
first, and medians count. The other sides are stock Stable-Baselines3, TRL (which needs `pip install
trl`) and bare `model.generate`. What a section does is said in its file in `benchmarks/speed/`.
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
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich
import torch
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

from agents.backbone import DType

RESULTS = Path(__file__).parent / "results"


def sections(device: str, dtype: DType, quick: bool) -> dict[str, Callable[[], Section]]:
    """What measures each section; at tiny sizes where it shall be quick."""
    workload = partial(Workload, device=device, dtype=dtype)
    if quick:
        short = workload(4, new=16)
        varied = {workload(8, new=16, mean=4): (2.5, 4.0)}
        wide = workload(8, new=16, vocabulary=10_000, layers=1, width=32, feed_forward=32)
        return {
            "stock": lambda: against_stock.measure(
                [Case(short, 32, part=8, targets=(50, 100)), Case(short, 16, part=2)]
            ),
            "trl": lambda: against_trl.measure(varied, rounds=1, iterations=2),
            "generate": lambda: against_generate.measure(varied, rounds=1, iterations=2),
            "compute": lambda: compute.measure([workload(8, new=16)], iterations=1),
            "shares": lambda: shares.measure(8, 1, at_most=15, device=device, dtype=dtype),
            "growth": lambda: growth.measure(
                workload(4, prompt=8, new=8), doublings=1, iterations=1, at_most=1.1
            ),
            "buffer": lambda: buffer.measure(workload(2, new=8), at_most=64),
            "memory": lambda: memory.measure(wide, at_most=0.25),
        }
    fixed, varied_lengths = workload(64), workload(64, mean=16)
    wide = workload(64, vocabulary=50_257, layers=2, width=64, feed_forward=172)
    return {
        "stock": lambda: against_stock.measure(
            [
                Case(workload(16), 256, part=16, rounds=2, targets=(50, 100)),
                Case(workload(16), 64, part=64, rounds=2),
                Case(workload(16, new=256), 256, part=16, targets=(150, 400)),
            ]
        ),
        "trl": lambda: against_trl.measure(
            {fixed: (1.2, 2), varied_lengths: (2.5, 4)}, rounds=5, iterations=3
        ),
        "generate": lambda: against_generate.measure(
            {fixed: (0.95, 1.5), varied_lengths: (2.5, 4)}, rounds=10, iterations=3
        ),
        "compute": lambda: compute.measure([workload(n) for n in (1, 16, 64, 256)], iterations=5),
        "shares": lambda: shares.measure(64, 10, at_most=15, device=device, dtype=dtype),
        "growth": lambda: growth.measure(
            workload(32, prompt=32, new=32), doublings=3, iterations=5, at_most=1.1
        ),
        "buffer": lambda: buffer.measure(workload(16), at_most=64),
        "memory": lambda: memory.measure(wide, at_most=0.25),
    }


SECTIONS = ("stock", "trl", "generate", "compute", "shares", "growth", "buffer", "memory")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the results")
    parser.add_argument("--device", default="cpu", help='of both sides: "cpu" (default), "cuda"')
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {arguments.device}: torch sees no GPU; leave it out for the CPU")
    if "trl" in arguments.only and find_spec("trl") is None:
        parser.error("section trl needs TRL: pip install trl, or choose others with --only")
    warnings.simplefilter("ignore", FutureWarning)  # of TRL, about names of transformers

    device, dtype = arguments.device, arguments.dtype
    name_of_results = "throughput"
    if (device, dtype) != ("cpu", "float32"):  # what was measured on a CPU stays
        name_of_results += f"_{device.replace(':', '')}_{dtype}"
    measures = sections(device, dtype, arguments.quick)
    everything: dict[str, Any] = {}
    for name in arguments.only:
        rich.print(f"[bold]{name}[/bold]")
        where = machine(device, dtype)
        section = measures[name]()
        everything[name] = {"machine": where, **asdict(section)}
        if not arguments.quick:  # what was measured is kept, even if a later section fails
            save(everything, arguments.output, name_of_results)
    show(everything)
    if arguments.quick:
        rich.print(
            "[bold]These sizes say nothing about speed: they show that all of it runs.[/bold]"
        )


def save(everything: dict[str, Any], directory: Path, name: str) -> None:
    """Write sections, and keep those that were measured at another time."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {**before, **everything}
    merged = {section: known[section] for section in SECTIONS if section in known}
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    (directory / f"{name}.md").write_text(markdown(merged), encoding="utf-8")


if __name__ == "__main__":
    main()
