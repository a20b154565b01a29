"""Runs side by side in processes of one thread each, with a line for each that is finished."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import rich
import torch

from comparison import warm_start
from comparison.run import Run, train
from comparison.store import Store


def executor(workers: int) -> ProcessPoolExecutor:
    """Processes that begin from nothing, since torch does not bear to be forked."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """Use one thread, as each core has its own process, and end with the process that began it."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for work forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    warm_start.clean_up()
    os._exit(1)


def carry_out(runs: Sequence[Run], store: Store, pool: ProcessPoolExecutor) -> list[str]:
    """Carry out the runs that the store does not have yet.

    Returns:
        What went wrong, a line a run; the other runs are kept.
    """
    missing = [run for run in runs if not store.has(run)]
    if len(missing) < len(runs):
        _say(f"{len(runs) - len(missing)} of {len(runs)} runs are there already")
    began = time.perf_counter()
    futures = {pool.submit(train, run): run for run in missing}
    failures = []
    try:
        for done, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            left = (time.perf_counter() - began) / done * (len(missing) - done)
            what = f"{run.reward}, {run.timing}, lambda {run.gae_lambda:g}, seed {run.seed}"
            head = f"{done}/{len(missing)}  {what}"
            error = future.exception()
            if error is not None:
                failures.append(f"{what}: {type(error).__name__}: {error}")
                _say(f"{head}: [bold red]{type(error).__name__}[/]")
                continue
            row, curve = future.result()
            store.add(row, curve)
            before, after = row[f"before: {run.reward}"], row[f"after: {run.reward}"]
            _say(
                f"{head}: {before:.3f} → [bold]{after:.3f}[/], KL {row['kl']:.1f}, "
                f"{row['seconds']:.0f} s; {clock(left)} left"
            )
    except BaseException:
        # Leaving the pool would carry out all that is still waiting.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return failures


def clock(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _say(line: str) -> None:
    rich.get_console().print(line, soft_wrap=True)
