"""Accepts connections, as many at once as wait: each wake-up of the accept loop costs as much as a few of them."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Final, Self

import trio

AT_ONCE: Final = 32
"""How many are accepted before other tasks have a turn."""


class Acceptor:
    """Accepts from one listener, while its block runs. The listener is its owner's to close.

    Args:
      listener: a `trio.SocketListener`, or any other, of which one is accepted at a time.
    """

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        self._listener = listener
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        if isinstance(self._listener, trio.SocketListener):
            # Trio's socket has no way to accept without waiting. This is the same one, by another descriptor.
            listening = self._listener.socket
            self._socket = socket.fromfd(listening.fileno(), listening.family, listening.type)
            self._socket.setblocking(False)
        return self

    async def accept(self) -> list[tuple[trio.abc.Stream, str]]:
        """The connections that wait, one at least, each with where it comes from; a checkpoint.

        Raises: OSError where none can be accepted.
        """
        first = await self._listener.accept()
        accepted = [(first, _remote(first))]
        if self._socket is not None:
            try:
                while len(accepted) < AT_ONCE:
                    connected, name = self._socket.accept()
                    accepted.append(
                        (trio.SocketStream(trio.socket.from_stdlib_socket(connected)), _host(name))
                    )
            except OSError:
                pass  # none waits any more; what else it is, the next call is told as well
        return accepted

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()


def _remote(stream: trio.abc.Stream) -> str:
    """Where a stream comes from, for logs and rates."""
    if not isinstance(stream, trio.SocketStream):
        return "memory"
    try:
        return _host(stream.socket.getpeername())
    except OSError:
        return "gone"


def _host(name: object) -> str:
    """The host of a socket's name."""
    return str(name[0]) if isinstance(name, tuple) and name else "unix"
