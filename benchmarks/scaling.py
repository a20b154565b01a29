"""What do more processes cost and bring, how much do they send, and what would many GPUs do?

    python benchmarks/scaling.py            # measures, fits, reports: about a quarter of an hour
    python benchmarks/scaling.py --again    # fits and reports what was measured before
    python benchmarks/scaling.py --paper    # writes the tables of the guide, from the same model
    python benchmarks/scaling.py --quick    # a smoke run, which writes nothing

writes `benchmarks/results/scaling.json`, `.md` and `.png`. `TokenPPO` trains with 1, 2 and 4
processes, each with as many rows as one has alone, on one thread each. Beside those that train one
model as many train one each, at the same time: what the others take longer is exchange. A cost
model (`benchmarks/scale/cost.py`) is fitted to some sizes and predicts others, which were chosen
before. It needs what the extra `dev` installs, and Linux, whose kernel counts the bytes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
from pathlib import Path

import rich
from scale.cases import ALONE, APART, FOURS, OTHERS, PAIRS, Case
from scale.guide import rewrite
from scale.records import Record, load, save
from scale.report import markdown, plot
from scale.work import measure
from speed.results import machine

RESULTS = Path(__file__).parent / "results"
GUIDE = Path(__file__).parents[1] / ".docs" / "pages" / "guides" / "scaling.md"


def main() -> None:
    """Measure, fit, and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="over all cases, in turn")
    parser.add_argument("--iterations", type=int, default=5, help="of each case in a round")
    parser.add_argument("--beside", default="nothing", help="what else runs on the machine")
    parser.add_argument("--again", action="store_true", help="report what was measured before")
    parser.add_argument("--paper", action="store_true", help="write the tables of the guide")
    parser.add_argument("--quick", action="store_true", help="a few cases; nothing is written")
    arguments = parser.parse_args()
    path = RESULTS / "scaling.json"
    if arguments.paper:
        rewrite(GUIDE, load(path)[1])
        return
    if arguments.quick:
        for record in run([PAIRS[0], OTHERS[-2]], 1, 2, None):
            rich.print(f"{record.case.name}: {record.sent:,.0f} bytes, {record.traffic.sent:,.0f}")
        return
    if not arguments.again:
        run(
            [*ALONE, *APART, *PAIRS, *FOURS, *OTHERS],
            arguments.rounds,
            arguments.iterations,
            path,
            arguments.beside,
        )
    where, records = load(path)
    path.with_suffix(".md").write_text(markdown(where, records), encoding="utf-8")
    plot(records, path.with_suffix(".png"))


def run(
    cases: list[Case], rounds: int, iterations: int, path: Path | None, beside: str = ""
) -> list[Record]:
    """Measure each case in each round, forwards and backwards in turn.

    Args:
        cases: What is measured.
        rounds: How often each.
        iterations: Of each in a round.
        path: Where it is kept after each round; None for nowhere.
        beside: What else runs on the machine.
    """
    where, loads = machine("cpu", "float32"), []
    records: dict[Case, Record] = {}
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        for case in cases if number % 2 == 0 else cases[::-1]:
            trained, found = measure(case, iterations)
            records.setdefault(case, Record(case, trained)).iterations += found
            took = f"{records[case].rollout:.3f} + {records[case].update:.3f} s"
            rich.print(f"{number + 1}/{rounds} {case.processes} {case.name}: {took}")
        where["load average"] = [round(load, 2) for load in loads]
        where |= {"threads of torch": 1, "beside it": beside}
        if path is not None:
            save(path, where, [*records.values()])
    return [*records.values()]


if __name__ == "__main__":
    main()
