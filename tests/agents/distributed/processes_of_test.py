"""Forks processes that find each other as those of a launcher do. For programs of tests."""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import closing


def fork(count: int, work: Callable[[int], None]) -> None:
    """Do something in so many processes; each gets its number.

    Raises:
        SystemExit: If one of them failed, with its traceback printed.
    """
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
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    if any(codes):
        sys.exit(f"processes ended with {codes}")
