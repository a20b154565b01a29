"""Forks processes that find each other as those of a launcher do. For programs of tests."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing


def begin(count: int, work: Callable[[int], None]) -> list[int]:
    """Let so many processes do something; each gets its number. Returns their ids."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for index in range(count):
        pid = os.fork()
        if not pid:
            launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
            launcher |= {"RANK": index, "LOCAL_RANK": index, "LOCAL_WORLD_SIZE": count}
            os.environ.update({name: str(value) for name, value in launcher.items()})
            try:
                work(index)
                sys.stdout.flush()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(pid)
    return children


def end(children: list[int], patience: float = 60.0) -> list[int]:
    """Wait for processes; their exit statuses, as `os.waitpid` has them.

    Raises:
        TimeoutError: If one of them hangs; all are killed then.
    """
    until = time.monotonic() + patience
    found: dict[int, int] = {}
    while len(found) < len(children):
        for pid in children:
            if pid not in found:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    found[pid] = status
        if time.monotonic() > until:
            for pid in set(children) - found.keys():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise TimeoutError(f"processes hang; the others ended with {found}")
        time.sleep(0.005)
    return [found[pid] for pid in children]


def fork(count: int, work: Callable[[int], None]) -> None:
    """Do something in so many processes, to the end.

    Raises:
        SystemExit: If one of them failed, with its traceback printed.
    """
    statuses = end(begin(count, work))
    if any(statuses):
        sys.exit(f"processes ended with {statuses}")
