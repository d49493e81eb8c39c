"""Where connections are accepted, by one process or several: TCP ports, and Unix sockets for a proxy on the machine."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, Final, Self

import attrs
import trio

from ..addresses import UNIX, Address
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
            _bound_receive_buffer(listener.socket)
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


def adopt(listening: socket.socket) -> trio.SocketListener:
    """A listener of a socket that another process listens on, too, or has opened for this one.

    Raises: ValueError where it is not listened on, or no stream socket.
    """
    if listening.family != socket.AF_UNIX:
        _bound_receive_buffer(listening)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


@attrs.frozen
class SharedAddress:
    """An address that several processes accept from.

    On a TCP port each has a socket of its own (``SO_REUSEPORT``), among which the system divides who comes. The one
    socket that there is of a Unix socket's path, or that somebody else has opened, is all processes'.

    A connection that nobody has accepted yet is lost with the last process that has its socket open. So whoever starts
    the processes keeps the sockets: what one leaves in its queue waits there for the next.
    """

    _names: Sequence[tuple[socket.AddressFamily, Any]]
    _shared: Sequence[socket.socket] = ()
    _file: str | None = None

    @classmethod
    async def listen(cls, host: str, port: int) -> Self:
        """Take `host` and `port`, or ``unix:PATH``.

        Raises: OSError where that can't be had, as by `open_listeners`.
        """
        listeners = await open_listeners(host, port)
        names = [(listener.socket.family, listener.socket.getsockname()) for listener in listeners]
        shared = []
        if host.startswith(UNIX):
            shared = [socket.socket(fileno=os.dup(listener.socket.fileno())) for listener in listeners]
        # A port was free, since these could have it alone. They make way for those that share it.
        for listener in listeners:
            listener.socket.close()
        return cls(names, shared, host.removeprefix(UNIX) if shared else None)

    @classmethod
    def of(cls, sockets: Sequence[socket.socket]) -> Self:
        """The address of sockets that somebody else listens on already."""
        return cls([(one.family, one.getsockname()) for one in sockets], sockets)

    @property
    def addresses(self) -> list[Address]:
        """Where it is, as `serve` tells it."""
        return [
            (name[0], name[1]) if isinstance(name, tuple) else (f"{UNIX}{name}", 0) for _, name in self._names
        ]

    def open(self) -> list[socket.socket]:
        """Sockets for one more process, with queues of their own where there can be such; the caller closes them.

        Raises: OSError where that can't be had.
        """
        if self._shared:
            return [one.dup() for one in self._shared]
        return [_listen_beside(family, name) for family, name in self._names]

    def close(self) -> None:
        """Close what is held here, and remove the file of a Unix socket that was made here."""
        for one in self._shared:
            one.close()
        if self._file is not None:
            _unlink(self._file)


def _listen_beside(family: socket.AddressFamily, name: Any) -> socket.socket:
    """Listen where others do."""
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(name)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _bound_receive_buffer(listening: Any) -> None:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def remove_socket(listener: trio.abc.Listener[trio.abc.Stream]) -> None:
    """Remove the file of a Unix socket; of others there is none."""
    if isinstance(listener, trio.SocketListener) and listener.socket.family == socket.AF_UNIX:
        _unlink(listener.socket.getsockname())


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
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
