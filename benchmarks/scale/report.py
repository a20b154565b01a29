"""The page and the picture of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from scale.cases import FOURS, OTHERS, PAIRS
from scale.cost import Machine, rollout_terms, update_terms
from scale.fit import Prediction, fit, is_plain, predict
from scale.records import Record

matplotlib.use("agg")

SHOWN = 0.04
"""Share that a part of an iteration must have for some model, to be shown by itself."""

WITHIN = 0.2
"""The relative error that a prediction shall keep."""
FITTED, HELD_OUT = "0.6", "#12836b"
OPERATIONS = {"prompts", "products", "attention", "head"}
BYTES = {"weights", "cache", "logits", "parameters", "bytes"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, its first column to the left."""
    return [
        f"| {' | '.join(header)} |",
        "|:--" + "|--:" * (len(header) - 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def markdown(where: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The page."""
    machine = fit(records)
    predictions = [predict(machine, one) for one in records if is_plain(one.case)]
    lines = ["# Scaling", "", *(f"{key}: {value}  " for key, value in where.items())]
    lines += ["", *_introduction(where, records)]
    lines += ["", "## More processes, as many rows each", "", *_processes(records)]
    lines += ["", "## Bytes that a process sends in an iteration", "", *_bytes(records)]
    lines += ["", "## The cost model", "", *_coefficients(machine)]
    lines += ["", "## What it predicts", "", *_predictions(predictions)]
    lines += ["", "![predicted and measured seconds](scaling.png)"]
    return "\n".join(lines) + "\n"


def _introduction(where: Mapping[str, Any], records: Sequence[Record]) -> list[str]:
    spread = median(one.spread for one in records)
    count = min(len(one.iterations) for one in records)
    rounds = len(where["load average"])
    turns = "one round" if rounds == 1 else f"{rounds} rounds, forwards and backwards in turn,"
    return [
        "`TokenPPO` with 1, 2 and 4 processes, each on one thread and with as many rows as one "
        "alone has; models are Llamas of random weights, texts have a fixed length, the reward "
        f"costs nothing. Medians of {count} iterations, in {turns} over all cases; the load is "
        "that at the beginning of each, this benchmark's own of the one before included. Half "
        f"the distance of the quartiles is {100 * spread:.1f}% "
        "of the median, in the middle of all cases.",
        "",
        "What two cores can show: what exchange costs, how many bytes are sent, and how two "
        "processes share caches and memory. What they cannot: anything faster with four processes, "
        "which take turns there; how exchange overlaps with computing, as the threads that send "
        "need the cores that compute; a network, as all stays in one machine's memory; a GPU.",
    ]


def _processes(records: Sequence[Record]) -> list[str]:
    by_case = {one.case: one for one in records}
    rows = []
    for case in [*PAIRS, *FOURS, *OTHERS]:
        if case.held_out or not case.together or case.processes == 1:
            continue
        one = by_case[case]
        # Adapters have no pair of their own to be compared with.
        apart = by_case.get(replace(case, together=False, shard=False), one)
        alone = by_case[replace(case, processes=1, shard=False)]
        shown = [alone, one] if case.processes == 2 and not case.shard else [one]
        for record in shown:
            single = record is alone or apart is one
            beside = record if single else apart
            exchange = record.seconds - beside.seconds
            rows.append(
                [
                    record.case.name,
                    str(record.case.processes),
                    f"{record.tokens_per_second:,.0f}",
                    f"{record.tokens_per_second / alone.tokens_per_second:.2f}",
                    f"{record.rollout:.3f}",
                    f"{record.update:.3f}",
                    "" if single else f"{beside.seconds:.3f}",
                    "" if single else f"{exchange:+.3f}",
                    "" if single else f"{record.waited:.3f}",
                ]
            )
    header = ["what each process does", "processes", "tokens/s of all", "times"]
    header += ["rollout, s", "update, s", "both, without exchange, s", "exchange, s"]
    header += ["of it in Python, s"]
    return [
        *table(header, rows),
        "",
        "Without exchange: as many processes train a model each, at the same time. Exchange is "
        "what those take longer that train one together, gradients and waiting included; in Python "
        "is what is spent in gathering and adding up numbers and arrays, which is where the faster "
        "one waits for the slower.",
    ]


def _bytes(records: Sequence[Record]) -> list[str]:
    rows = []
    for one in records:
        case, traffic = one.case, one.traffic
        if case.processes == 1 or not case.together:
            continue
        rows.append(
            [
                case.name,
                str(case.processes),
                f"{traffic.gradients:,.0f}",
                f"{traffic.weights:,.0f}",
                f"{traffic.figures:,.0f}",
                f"{traffic.sent:,.0f}",
                f"{one.sent:,.0f}",
                f"{100 * (traffic.sent / one.sent - 1):+.2f}%",
            ]
        )
    header = ["what each process does", "processes", "gradients", "weights", "all else"]
    header += ["by formula", "as the kernel counted", "formula over count"]
    return [
        *table(header, rows),
        "",
        "By formula (`benchmarks/scale/traffic.py`): gradients of DDP are 2 (k - 1) / k times "
        "their 4 bytes a number, once a mini-batch. Weights of FSDP2 are (k - 1) / k times those "
        "of a model once a rollout, and of its layers twice and of the rest once for each piece of "
        "a mini-batch, its gradients as much again, here twice that, as gloo makes the whole sum "
        "where NCCL makes each its part. All else is advantages, values, returns, and figures for "
        "the log. The kernel counts what goes out through TCP connections; some kilobytes a "
        "mini-batch above the formula are what gloo says to itself.",
    ]


def _coefficients(machine: Machine) -> list[str]:
    rows = []
    for phase in ("rollout", "update", "exchange"):
        for name, value in getattr(machine, phase).items():
            rows.append([phase, name, f"{value:.3g}", _rate(name, value)])
    factors = "; ".join(
        f"{count} processes {rollout:.2f} in rollouts, {update:.2f} in updates"
        for count, (rollout, update) in machine.slowdown.items()
        if count > 1
    )
    return [
        *table(["phase", "what is counted", "seconds of one", "that is"], rows),
        "",
        "By how much several processes at a time are slower than one, without exchange: "
        f"{factors}. "
        "Terms and equations are in `benchmarks/scale/cost.py`. A term that takes nothing is one "
        "that others explain better. A message is dear here, and a byte: whoever sends or waits "
        "needs a core on which another process computes.",
    ]


def _rate(name: str, value: float) -> str:
    if not value:
        return "nothing"
    if name in OPERATIONS:
        return f"{1e-9 / value:,.0f} GFLOP/s"
    if name in BYTES:
        return f"{1e-9 / value:,.2f} GB/s"
    return f"{1e6 * value:,.3g} µs"


def _predictions(predictions: Sequence[Prediction]) -> list[str]:
    rows = []
    held_out = [one for one in predictions if one.record.case.held_out and _counts(one)]
    for one in held_out:
        case, errors = one.record.case, one.errors
        rows.append(
            [
                case.name,
                str(case.processes),
                f"{one.record.rollout:.3f}",
                f"{one.rollout:.3f}",
                f"{one.record.update:.3f}",
                f"{one.update:.3f}",
                *(f"{100 * error:+.0f}%" for error in errors),
                "yes" if max(map(abs, errors)) <= WITHIN else "**no**",
            ]
        )
    header = ["held out", "processes", "rollout, s", "predicted", "update, s", "predicted"]
    header += ["rollout", "update", "both", "all within 20%"]
    kept = sum(abs(one.errors[2]) <= WITHIN for one in held_out)
    parts = sum(abs(error) <= WITHIN for one in held_out for error in one.errors[:2])
    shown = [one for one in predictions if not one.record.case.held_out and _counts(one)]
    of_shown = sorted(abs(one.errors[2]) for one in shown)
    return [
        f"Of {len(held_out)} cases that nothing was fitted to, {kept} are predicted within 20%, "
        f"rollout and update together; of their {2 * len(held_out)} rollouts and updates, {parts}. "
        f"Of the {len(shown)} that it was fitted to, half are within {100 * median(of_shown):.1f}%"
        f", all within {100 * of_shown[-1]:.0f}%.",
        "",
        *table(header, rows),
        "",
        "Where it errs. Processes that share a cache and a memory are slowed down by one factor "
        "here, and in truth by none to a fifth, by what they read: rollouts of two come out too "
        "long or too short. Large vocabularies: with arrays of logits of some 10 MB the C "
        "library gives memory back to the system and takes it again, or keeps it, by thresholds "
        "that follow what was freed before. With 32,768 tokens an update of this base model had "
        "32,640 page faults, a sixth of its time, and with 50,257 none, so that a coefficient by "
        "the byte cannot fit both. Very small models: kernels that are all overhead have a floor "
        "of their own.",
    ]


def _counts(prediction: Prediction) -> bool:
    """Whether it is a training, and not a measurement beside one."""
    case = prediction.record.case
    return case.processes == 1 or case.together


def plot(records: Sequence[Record], path: Path) -> None:
    """Predicted against measured seconds, and what they are made of."""
    machine = fit(records)
    predictions = [predict(machine, one) for one in records if is_plain(one.case)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for held_out, color in ((False, FITTED), (True, HELD_OUT)):
        for count, marker in ((1, "o"), (2, "s"), (4, "^")):
            chosen = [
                one
                for one in predictions
                if _counts(one)
                and (one.record.case.held_out, one.record.case.processes) == (held_out, count)
            ]
            left.scatter(
                [one.record.seconds for one in chosen],
                [one.rollout + one.update for one in chosen],
                s=26,
                color=color,
                marker=marker,
                label=f"{'held out' if held_out else 'fitted'}, {count}",
            )
    everything = [one.record.seconds for one in predictions]
    ends = [0.8 * min(everything), 1.3 * max(everything)]
    for factor, style in ((1.0, "-"), (1 + WITHIN, ":"), (1 - WITHIN, ":")):
        left.plot(ends, [factor * end for end in ends], color="0.4", lw=0.8, ls=style)
    left.set(xscale="log", yscale="log", xlabel="measured, s", ylabel="predicted, s")
    left.set_title("An iteration, by number of processes; dotted is 20%", fontsize=9, loc="left")
    left.legend(fontsize=7, frameon=False)
    _stack(right, machine, predictions)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _stack(axis: Any, machine: Machine, predictions: Sequence[Prediction]) -> None:
    """What the model says an iteration is made of, by size."""
    sizes: list[Prediction] = []
    for one in predictions:
        case = one.record.case
        usual = (case.workload.rows, case.workload.new, case.workload.prompt) == (16, 32, 16)
        if case.processes == 1 and usual and (case.mini_batches, case.epochs) == (4, 1):
            sizes.append(one)
    sizes.sort(key=lambda one: one.record.case.shape.parameters)
    parts: dict[str, list[float]] = {}
    for one in sizes:
        case = one.record.case
        for phase, terms in (
            ("rollout", rollout_terms(case.shape, case.load)),
            ("update", update_terms(case.shape, case.load)),
        ):
            whole = one.rollout + one.update
            for name, value in terms.items():
                share = getattr(machine, phase)[name] * value / whole
                parts.setdefault(f"{phase}: {name}", []).append(share)
    bottom = [0.0] * len(sizes)
    places = range(len(sizes))
    for phase, shades in (("rollout", "Greens"), ("update", "Oranges")):
        shown = [name for name in parts if name.startswith(phase) and max(parts[name]) > SHOWN]
        shown.sort(key=lambda name: -max(parts[name]))
        for name, shade in zip(shown, np.linspace(0.85, 0.25, len(shown)), strict=True):
            color = plt.get_cmap(shades)(shade)
            axis.bar(places, parts[name], bottom=bottom, color=color, label=name, width=0.8)
            bottom = [low + part for low, part in zip(bottom, parts[name], strict=True)]
    axis.bar(places, [1 - low for low in bottom], bottom=bottom, color="0.85", label="all else")
    axis.set_ylabel("share of the time, by the model")
    names = [one.record.case.name.split(", vocabulary")[0] for one in sizes]
    wide = [one.record.case.workload.vocabulary for one in sizes]
    labels = [f"{name}, {v:,}" if v > 512 else name for name, v in zip(names, wide, strict=True)]
    axis.set_xticks(places, labels, rotation=60, ha="right")
    axis.set_title("What an iteration is made of, by model and vocabulary", fontsize=9, loc="left")
    axis.legend(fontsize=7, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
