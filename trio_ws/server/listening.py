"""Where connections are accepted: TCP ports, and Unix sockets for a proxy on the same machine."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

import trio

from ..addresses import UNIX
from ..config import KIB

BACKLOG: Final = 1024

RECEIVE_BUFFER: Final = 64 * KIB
"""Bytes that the kernel keeps of what a client sent and the server has not read; left alone it may take megabytes."""


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on `host` and `port`, or on ``unix:PATH``; a checkpoint.

    Raises: OSError where that can't be had.
    """
    if not host.startswith(UNIX):
        listeners = await trio.open_tcp_listeners(port, host=host.strip("[]"), backlog=BACKLOG)
        for listener in listeners:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return listeners
    path = host.removeprefix(UNIX)
    await trio.lowlevel.checkpoint()
    _remove_left_over(path)
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await listening.bind(path)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return [trio.SocketListener(listening)]


def remove_socket(listener: trio.abc.Listener[trio.abc.Stream]) -> None:
    """Remove the file of a Unix socket; of others there is none."""
    if isinstance(listener, trio.SocketListener) and listener.socket.family == socket.AF_UNIX:
        try:
            os.unlink(listener.socket.getsockname())
        except OSError:
            pass  # somebody else did, or it is another server's by now


def _remove_left_over(path: str) -> None:
    """Remove the socket of a server that died; one that is alive keeps its own."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # no socket: binding says so
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
