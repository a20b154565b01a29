"""A Ray to work on: that of a cluster, or one that is started here and ends with the work."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from textgym.extras import require

_PATIENCE = 5.0
"""Seconds in which an address must answer. Ray itself asks for minutes, and then ends the
program."""

_SILENCE = 10.0
"""Seconds for which a Ray that was there may be silent: its head may be begun anew."""

_AUTO = "auto"

_CLIENT = "ray://"

_CLIENT_PORT = 10001

_ADDRESS = re.compile(r"(ray://)?(\[[^\[\]\s]+\]|[^\[\]\s:/?]+)(?::(\d{1,5}))?([/?]\S*)?")
"""Scheme, host, port, and what a client tells its server."""

_CURE = (
    "On the head of a cluster 'ray start --head' says its address; without one, leave it out and "
    "all runs on this machine."
)

# Both ports of a Ray speak HTTP/2, which begins so: a greeting, and settings, of which there are
# none. The other side sends its own.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4

_TOKEN = (
    " If the cluster asks for a token, as those of Ray 2.60 do, set RAY_AUTH_MODE=token, and have "
    "the token of its head in ~/.ray/auth_token; 'ray get-auth-token' shows it there."
)

# Ray tells a terminal of every worker that dies, in ten lines; who gave it work says so in one.
# This is read when Ray is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")


class ClusterGone(ConnectionError):  # noqa: N818  # says what is wrong
    """A Ray that was there is no longer."""


@contextmanager
def connected(
    address: str | None = None,
    num_cpus: int | None = None,
    *,
    runtime_env: Mapping[str, Any] | None = None,
    wanted_by: str = "this",
) -> Iterator[None]:
    """Be connected to a Ray.

    A Ray that this process is connected to already is used as it is, and left alone. One that is
    started here is quiet: it has no dashboard, reports its use to nobody, and what its workers
    print stays in its own logs.

    Args:
        address: Of a cluster: `"auto"` for that of this machine, `"host:6379"`, or
            `"ray://host:10001"` from a machine that is no part of it. None starts a Ray here,
            whatever RAY_ADDRESS says.
        num_cpus: CPUs of one that is started here; None for all that there are.
        runtime_env: What workers need, as `ray.init` takes it.
        wanted_by: What needs Ray, for the error message.

    Raises:
        ConnectionError: If nothing answers at the address.
        ValueError: If it is no address.
        MissingExtra: If Ray is not installed.
    """
    ray = require("ray", extra="ray", wanted_by=wanted_by)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime_env is not None:
        options["runtime_env"] = dict(runtime_env)
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # "local": not the cluster of RAY_ADDRESS.
        options.update(address="local", num_cpus=num_cpus, include_dashboard=False)
    else:
        _check_answers(address)
        options["address"] = address
    with _keeping_sigterm():
        try:
            ray.init(**options)
        except ConnectionError as error:
            problem = str(error).strip().rstrip(".")
            cure = " 'ray start --head' starts one." if address == _AUTO else _TOKEN
            raise ConnectionError(f"no Ray at {address}: {problem}.{cure}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Leave SIGTERM to those who save when it comes: Ray would have it end the program."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main and before is not None:  # which is none of Python's
            signal.signal(signal.SIGTERM, before)


def described(address: str | None) -> str:
    """The Ray that this process is connected to, in a line: where it is, and how large.

    Args:
        address: As it was given to `connected`.
    """
    there = machines()
    sums = sizes(*(sum(has.get(what, 0.0) for has in there) for what in ("CPU", "GPU")))
    several = f" on {len(there)} machines" if len(there) > 1 else ""
    return f"Ray at {_place(address)}, {', '.join(sums)}{several}"


def machines() -> list[dict[str, float]]:
    """What each machine has that is part now of the Ray that this process is connected to."""
    import ray

    cluster: Any = ray
    return [node["Resources"] for node in cluster.nodes() if node["Alive"]]


def sizes(cpus: float, gpus: float) -> list[str]:
    """CPUs and GPUs in words."""
    return [f"{n:g} {what}{'s' * (n != 1)}" for n, what in ((cpus, "CPU"), (gpus, "GPU"))]


def check_alive(address: str | None) -> None:
    """Raise if the Ray is gone that this process is connected to.

    To be called before Ray is asked for what its head knows: Ray would wait for a minute for one
    that is gone, and then end the program.

    Args:
        address: As it was given to `connected`.

    Raises:
        ClusterGone: If nothing has answered there for a while.
    """
    place = _place(address)
    until = time.monotonic() + _SILENCE
    while True:
        try:
            if _is_ray(place):
                return
        except OSError:
            pass
        if time.monotonic() > until:
            raise gone(address)
        time.sleep(0.5)


def gone(address: str | None) -> ClusterGone:
    """The error that says so, by the address that was given to `connected`."""
    if address is None:
        return ClusterGone("the Ray that was started here is gone")
    return ClusterGone(f"the cluster at {_place(address)} is gone")


def check_machines(packages: Sequence[str] = ("textgym", "agents")) -> None:
    """Raise if a machine of the Ray that this process is connected to lacks what work needs.

    Args:
        packages: What must be installed there.

    Raises:
        OSError: With the machine, what it lacks, and the cure.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Sent by value, since it is inside: it runs where nothing of ours is.
    def missing() -> list[str]:
        from importlib.util import find_spec

        return [name for name in packages if find_spec(name) is None]

    cluster: Any = ray
    answers = []
    for node in cluster.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            # Ray would ask again without end where memory is short.
            asked = cluster.remote(num_cpus=0, max_retries=0)(missing)
            asked = asked.options(scheduling_strategy=there)
            answers.append((node["NodeManagerHostname"], asked.remote()))
    for machine, answer in answers:
        try:
            names = cluster.get(answer)
        except RayError as error:
            raise OSError(
                f"{machine}, a machine of this Ray, does not say whether it has "
                f"{' and '.join(packages)} ({type(error).__name__}). Try again, or take it out of "
                "the cluster."
            ) from error
        if names:
            raise OSError(
                f"{machine}, a machine of this Ray, has no {' and no '.join(names)}. Install on "
                "all of them what is installed here, such as pip install '.[all]'."
            )


def _check_answers(address: str) -> None:
    """Raise a ConnectionError unless a Ray may be at an address that names a machine."""
    if address == _AUTO:  # of which Ray itself knows at once
        return
    try:
        is_ray = _is_ray(address)
    except OSError as error:
        raise ConnectionError(f"nothing answers at {address} ({error}). {_CURE}") from error
    if not is_ray:
        raise ConnectionError(f"what answers at {address} is no Ray. {_CURE}")


def _is_ray(address: str) -> bool:
    """Whether what answers at an address may be a Ray; raise an OSError if nothing does."""
    with socket.create_connection(_parsed(address), timeout=_PATIENCE) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return True
        connection.sendall(_GREETING)
        answer = connection.recv(len(_GREETING))
    return answer[3:4] == bytes([_SETTINGS])


def _place(address: str | None) -> str:
    """Where the head is of the Ray that this process is connected to."""
    import ray

    if address is not None and address.startswith(_CLIENT):
        return address
    place: str = ray.get_runtime_context().gcs_address
    return place


def _parsed(address: str) -> tuple[str, int]:
    """Host and port of an address; raise a ValueError if it has none."""
    parts = _ADDRESS.fullmatch(address)
    if parts is not None:
        scheme, host, port, rest = parts.groups()
        port = port or (_CLIENT_PORT if scheme else 0)
        if 0 < int(port) < 2**16 and (scheme or not rest):
            return host.strip("[]"), int(port)
    raise ValueError(
        f"{address!r} is no address of a Ray; expected 'auto', 'HOST:6379' or 'ray://HOST:10001'. "
        f"{_CURE}"
    )
