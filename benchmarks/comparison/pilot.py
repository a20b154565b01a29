"""The pilot's table: which lambda suits which timing."""

from __future__ import annotations

import numpy as np

from comparison.analysis import pilot_table, share_of_best
from comparison.markdown import counted, head, row
from comparison.store import Store


def pilot(store: Store, compared: Store) -> list[str]:
    """Which lambda suits which timing.

    Args:
        store: Has the runs of the pilot.
        compared: Has the scales of the comparison.
    """
    if not store.runs:
        return []
    table = pilot_table(store)
    names = list(next(iter(table.values())))
    seeds = sorted({row["seed"] for row in store.runs})
    tokens = sorted({f"{row['total_timesteps']:,}" for row in store.runs})
    means = {key: float(np.mean(list(gains.values()))) for key, gains in table.items()}
    shares = {key: share_of_best(table, *key) for key in table}
    lines = [
        "## The pilot: which lambda suits which timing",
        "",
        "Mean of the learning curve above its start, in standard deviations of the base model's "
        "texts. The last column is the mean of each gain divided by the reward's best with that "
        "timing, so that a reward with large gains counts no more than others. Bold is the best of "
        "a timing.",
        "",
        f"It had {counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), which the "
        f"comparison does not use, and {', '.join(tokens)} tokens a run"
        + (
            "; and an earlier state of the tasks, whose base texts have slightly other scales."
            if _other_scales(store, compared)
            else "."
        ),
        "",
        *head("timing", "lambda", *names, "mean", "mean share of best"),
    ]
    for (timing, lam), gains in table.items():
        cells = [f"{gains[name]:.2f}" for name in names]
        for values in (means, shares):
            best = max(value for (other, _), value in values.items() if other == timing)
            value = values[timing, lam]
            cells.append(f"**{value:.2f}**" if value == best else f"{value:.2f}")
        lines.append(row(timing, f"{lam:g}", *cells))
    return [*lines, ""]


def _other_scales(store: Store, compared: Store) -> bool:
    known = [name for name in store.scales if name in compared.scales]
    pairs = [(store.scales[name]["mean"], compared.scales[name]["mean"]) for name in known]
    return not all(np.isclose(*pair, rtol=1e-4) for pair in pairs)
