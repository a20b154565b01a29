"""Jobs side by side on a Ray: of this machine, or of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from agents.ray_cluster import check_machines, connected, machines
from agents.ray_lost import LOST
from comparison.pool import say

RETRIES = 2
"""How often a job is tried again whose worker was lost."""

THREADS = 1
"""Of torch in a job, which is also the CPUs that it is given."""

SHIPPED = Path(__file__).parent
"""What workers get from here. The rest is installed where they are."""

SETTINGS = ("HF_HUB_DISABLE_TELEMETRY", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
"""Variables that workers have as they are here."""


class WorkerLost(BrokenExecutor):
    """A call lost its worker as often as it was made."""


@dataclass(frozen=True)
class _Call:
    """A function that is called elsewhere.

    Attributes:
        name: What is called, in words.
        work: The function, with its arguments.
        deaths: How often its worker was lost.
        future: What comes of it.
    """

    name: str
    work: Callable[[], Any]
    deaths: int = 0
    future: Future[Any] = field(default_factory=Future)


class RayExecutor(Executor):
    """Calls functions in workers of the Ray that this process is connected to.

    A call whose worker is lost is made again, `RETRIES` times at most; one that raises is not, and
    its future has the error as it was raised. Calls wait for a machine that has what they need.

    Args:
        gpus: Of a call, such as 0.25; calls share a GPU then.
    """

    def __init__(self, gpus: float = 0.0) -> None:
        # Ray would try again by itself without end if memory ran out; here it is counted.
        self._remote = ray.remote(num_cpus=THREADS, num_gpus=gpus, max_retries=0)(_called)
        self._placed: dict[Future[Any], ray.ObjectRef[Any]] = {}
        self._placing = Lock()
        self._cancelled = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`; Ray's lists of tasks show the first argument."""
        call = _Call(str(args[0] if args else fn), partial(fn, *args, **kwargs))
        call.future.set_running_or_notify_cancel()
        self._place(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor`; to cancel ends those that are running, too."""
        with self._placing:
            self._cancelled |= cancel_futures
            placed = dict(self._placed)
        if cancel_futures:
            for ref in placed.values():
                ray.cancel(ref, force=True)
        if wait:
            futures.wait(placed)

    def _place(self, call: _Call) -> None:
        with self._placing:
            if self._cancelled:
                raise CancelledError
            ref = self._remote.options(name=call.name).remote(call.work)
            self._placed[call.future] = ref
        ref.future().add_done_callback(partial(self._land, call))

    def _land(self, call: _Call, done: Future[Any]) -> None:
        """Take what came of a call, or make it again."""
        error = done.exception()
        if error is None:
            del self._placed[call.future]
            call.future.set_result(done.result())
        elif isinstance(error, LOST) and not self._cancelled:
            call = replace(call, deaths=call.deaths + 1)
            if call.deaths > RETRIES:
                self._fail(call, _worker_lost(call, error))
                return
            retry = f"({type(error).__name__}; {call.deaths} of {RETRIES})"
            say(f"{call.name} lost its worker, and is tried again {retry}")
            # This is a thread of Ray, in which Ray must not be waited for.
            Thread(target=self._again, args=(call,), daemon=True).start()
        else:
            self._fail(call, error.cause if isinstance(error, RayTaskError) else error)

    def _again(self, call: _Call) -> None:
        try:
            self._place(call)
        except (CancelledError, ConnectionError, RayError, RuntimeError) as error:
            self._fail(call, error)

    def _fail(self, call: _Call, error: BaseException) -> None:
        del self._placed[call.future]
        call.future.set_exception(error)


@contextmanager
def ray_executor(address: str | None, workers: int, gpus: float = 0.0) -> Iterator[RayExecutor]:
    """Workers of a cluster, or of a Ray that is started here and ends with the block.

    An error in the block, or Ctrl-C, ends what they are at.

    Args:
        address: Of the cluster, as `agents.ray_cluster.connected` takes it; None to start one here.
        workers: CPUs of one that is started, each of which is a worker.
        gpus: Of a job.

    Raises:
        ConnectionError: If nothing answers at the address.
        OSError: If a machine of the cluster lacks what jobs need.
    """
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    environment = {"py_modules": [str(SHIPPED)], "env_vars": settings}
    with connected(address, num_cpus=workers, runtime_env=environment):
        check_machines()
        if not any(_has_room(machine, gpus) for machine in machines()):
            say(f"No machine has a CPU and {gpus:g} GPUs now: jobs wait until one joins.")
        pool = RayExecutor(gpus)
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()


def _worker_lost(call: _Call, error: BaseException) -> WorkerLost:
    """What is said of a call that is not made again."""
    if isinstance(error, OutOfMemoryError):
        cure = (
            "Its machine has too little memory for as many runs as it has CPUs: give a Ray that is "
            "started here fewer --workers, and a cluster's fewer CPUs (ray start --num-cpus)."
        )
    else:
        cure = "Ray's logs on its machine say why; they are in /tmp/ray/session_latest/logs."
    why = type(error).__name__
    lost = WorkerLost(f"{call.name} lost its worker {call.deaths} times ({why}). {cure}")
    lost.__cause__ = error
    return lost


def _called(call: Callable[[], Any]) -> Any:
    torch.set_num_threads(THREADS)
    return call()


def _has_room(has: Mapping[str, float], gpus: float) -> bool:
    return has.get("CPU", 0) >= THREADS and has.get("GPU", 0) >= gpus
