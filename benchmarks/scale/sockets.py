"""Bytes that this process has sent to others, as the kernel counts them.

Of each open TCP connection Linux tells how many bytes of data were handed on (`tcp_info`, see
`man 7 tcp`): what is sent again, headers and acknowledgements do not count. Processes that share
memory, as GPUs of one node do, are not seen.
"""

from __future__ import annotations

import os
import socket
import stat
import struct

_BYTES_SENT = struct.Struct("=200xQ")
"""`tcpi_bytes_sent` behind what stands before it in `struct tcp_info`; since Linux 4.19."""


def bytes_sent() -> int:
    """Bytes that went out through all TCP connections that are open now.

    Raises:
        OSError: Where the kernel does not tell, which is everywhere but on Linux.
    """
    return sum(map(_sent_through, _descriptors()))


def _descriptors() -> list[int]:
    open_ones = []
    for name in os.listdir("/proc/self/fd"):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:  # the directory that is being listed, which is closed again
            continue
        if is_socket:
            open_ones.append(int(name))
    return open_ones


def _sent_through(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.type != socket.SOCK_STREAM or connection.family == socket.AF_UNIX:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT.size)
    if len(info) < _BYTES_SENT.size:
        raise OSError("the kernel does not say how many bytes a connection sent; Linux 4.19 does")
    (sent,) = _BYTES_SENT.unpack(info)
    return int(sent)
