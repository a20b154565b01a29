"""The tables of the guide on scaling, computed and not typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scale.cost import Machine
from scale.fit import fit
from scale.paper import (
    AS_IT_IS,
    ETHERNET,
    H100,
    INFINIBAND,
    MODELS,
    NVLINK,
    PLANS,
    Estimate,
    Plan,
    estimate,
)
from scale.records import Record
from scale.report import table

ROOM = 0.9
"""Of a GPU's memory, for all but activations."""


def rewrite(path: Path, records: Sequence[Record]) -> None:
    """Put the tables that the model gives in the places of a page that are marked for them.

    Args:
        path: The page; `<!-- computed: NAME -->` and `<!-- end -->` mark a place.
        records: What was measured.

    Raises:
        KeyError: If it wants a table that there is not.
    """
    tables = computed(fit(records))
    path.write_text(filled(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


def filled(page: str, tables: dict[str, list[str]]) -> str:
    """A page with its tables as they should be."""

    def fill(place: re.Match[str]) -> str:
        return "\n".join([place[1], "", *tables[place[2]], "", place[3]])

    return re.sub(r"(<!-- computed: (.*?) -->).*?(<!-- end -->)", fill, page, flags=re.DOTALL)


def computed(machine: Machine) -> dict[str, list[str]]:
    """Lines of each table by name."""
    return {"rows": _rows(machine), "plans": _plans(machine)}


def _rows(machine: Machine) -> list[str]:
    """One GPU, and more and more rows."""
    rows = []
    for name, shape in MODELS.items():
        for count in (16, 64, 256, 1_024):
            load = replace(AS_IT_IS, rows=count, mini_batches=max(count // 16, 1))
            one = estimate(shape, Plan("", load), 1, H100, NVLINK, machine)
            update = one.update / one.total
            rows.append(
                [
                    name,
                    f"{count:,}",
                    f"{1e3 * one.decode / load.new:.1f}",
                    one.decode_waits_for,
                    f"{one.tokens / one.rollout:,.0f}",
                    f"{one.tokens / one.total:,.0f}",
                    f"{update:.0%}",
                ]
            )
    header = ["model", "rows", "decode step, ms", "waits for", "rollout, tokens/s"]
    header += ["with update, tokens/s", "update's share"]
    return table(header, rows)


def _plans(machine: Machine) -> list[str]:
    """Eight GPUs and 64, trained in several ways."""
    rows = []
    for name, shape in MODELS.items():
        for plan in PLANS:
            eight, many, slow = (
                estimate(shape, plan, gpus, H100, network, machine)
                for gpus, network in ((8, NVLINK), (64, INFINIBAND), (64, ETHERNET))
            )
            cells = [name, plan.name, f"{eight.state / 1e9:.0f} GB"]
            if eight.state > ROOM * H100.memory:
                rows.append([*cells, "", "too large", *[""] * 5])
                continue
            parts = [f"{eight.rollout:.1f}", f"{eight.update:.1f}", f"{eight.exchange:.1f}"]
            cells += [f"{eight.traffic.sent / 1e9:,.1f} GB", f"{' + '.join(parts)} s"]
            cells += [f"{eight.tokens / eight.total:,.0f}", eight.bottleneck]
            cells += [_of_ideal(one) for one in (eight, many, slow)]
            rows.append(cells)
    header = ["model", "how", "memory", "sent", "rollout + update + exchange", "tokens/s"]
    header += ["what takes longest", "of ideal, 8", "64, InfiniBand", "64, Ethernet"]
    return table(header, rows)


def _of_ideal(one: Estimate) -> str:
    """Tokens a second over what they would be if exchange took nothing."""
    return f"{1 - one.exchange / one.total:.0%}"
