"""Jobs side by side on a Ray: of this machine, or of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError

from agents.ray_cluster import check_machines, connected
from comparison.pool import say

RETRIES = 2
"""How often a job is tried again whose worker died."""

THREADS = 1
"""Of torch in a job, which is also the CPUs that it is given."""

SHIPPED = Path(__file__).parent
"""What workers get from here. The rest is installed where they are."""

SETTINGS = ("HF_HUB_DISABLE_TELEMETRY", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
"""Variables that workers have as they are here."""


class RayExecutor(Executor):
    """Calls functions in workers of the Ray that this process is connected to.

    A call whose worker dies is made again, `RETRIES` times at most; one that raises is not, and
    its future has the error as it was raised. Calls wait for a machine that has what they need.

    Args:
        gpus: Of a call, such as 0.25; calls share a GPU then.
    """

    def __init__(self, gpus: float = 0.0) -> None:
        self._remote = ray.remote(num_cpus=THREADS, num_gpus=gpus, max_retries=RETRIES)(_called)
        self._calls: dict[Future[Any], ray.ObjectRef[Any]] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`; Ray's lists of tasks show the first argument."""
        name = str(args[0] if args else fn)
        call = self._remote.options(name=name).remote(partial(fn, *args, **kwargs))
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._calls[future] = call
        call.future().add_done_callback(partial(self._hand_over, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor`; to cancel ends those that are running, too."""
        waiting = dict(self._calls)
        if cancel_futures:
            for call in waiting.values():
                ray.cancel(call, force=True)
        if wait:
            futures.wait(waiting)

    def _hand_over(self, future: Future[Any], done: Future[Any]) -> None:
        del self._calls[future]
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(error.cause if isinstance(error, RayTaskError) else error)


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
        if not any(_has_room(node, gpus) for node in _machines()):
            say(f"No machine has a CPU and {gpus:g} GPUs now: jobs wait until one joins.")
        pool = RayExecutor(gpus)
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()


def _called(call: Callable[[], Any]) -> Any:
    torch.set_num_threads(THREADS)
    return call()


def _machines() -> list[dict[str, Any]]:
    """Those that take jobs."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _has_room(node: dict[str, Any], gpus: float) -> bool:
    has = node["Resources"]
    return bool(has["CPU"] >= THREADS and has.get("GPU", 0) >= gpus)
