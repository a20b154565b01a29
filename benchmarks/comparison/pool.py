"""Jobs side by side, with a line for each that is finished.

In which pool they are carried out is all the same: processes of this machine (`executor`), or a Ray
(`ray_pool`). Both are executors as `concurrent.futures` defines them.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from typing import TypeVar

import rich
import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def executor(workers: int, threads: int = 1) -> ProcessPoolExecutor:
    """Processes that begin from nothing, since torch does not bear to be forked.

    Args:
        workers: How many.
        threads: Of torch in each of them.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(threads,))


def _begin(threads: int) -> None:
    """Use so many threads, and end with the process that began it."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for work forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def carry_out(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    keep: Callable[[Job, Result], str],
    pool: Executor,
) -> list[str]:
    """Carry out jobs, and keep what comes out of each as soon as it is there.

    Args:
        jobs: Each says what it is when it is printed.
        work: Carries out a job, in another process.
        keep: Keeps the result, and says in a few words what it is.
        pool: Who carries them out.

    Returns:
        What went wrong, a line a job; the other jobs are kept.
    """
    began = time.perf_counter()
    futures = {pool.submit(work, job): job for job in jobs}
    failures = []
    try:
        for done, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            left = (time.perf_counter() - began) / done * (len(jobs) - done)
            head = f"{done}/{len(jobs)}  {job}"
            error = future.exception()
            if error is not None:
                failures.append(f"{job}: {type(error).__name__}: {error}")
                say(f"{head}: [bold red]{type(error).__name__}[/]")
                continue
            say(f"{head}: {keep(job, future.result())}; {clock(left)} left")
    except BaseException:
        # Leaving the pool would carry out all that is still waiting.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return failures


def clock(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def say(line: str) -> None:
    """Print a line as it is, however long."""
    rich.get_console().print(line, soft_wrap=True)
