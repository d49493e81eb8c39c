"""Accepts connections: a few at once, since each wake-up of the accept loop costs as much as several of them, and who
is to be cut before anything is made of him.

What a flood takes of the loop is bounded: so many are let in before other tasks have a turn; and where some are cut,
nobody is looked at for a moment, so that many are cut in one go.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

import trio

from .stream import reset

LET_IN_AT_ONCE: Final = 4
CUT_AT_ONCE: Final = 16
"""How many are let in, or cut, before other tasks have a turn."""

PAUSE: Final = 0.005
"""Seconds after some were cut in which nobody is accepted, unless there were `CUT_AT_ONCE`."""


class Judgement(enum.Enum):
    """What becomes of a connection."""

    LET_IN = enum.auto()
    REFUSE = enum.auto()  # it is told why
    CUT = enum.auto()


class Accepted(NamedTuple):
    """A connection that is not cut, and where it comes from."""

    stream: trio.abc.Stream
    remote: str
    judgement: Judgement


class Acceptor:
    """Accepts from one listener, while its block runs. The listener is its owner's to close.

    Args:
      listener: a `trio.SocketListener`, or any other, of which one is accepted at a time.
      judge: asked for each connection, by where it comes from. It must neither wait nor raise.
    """

    def __init__(
        self, listener: trio.abc.Listener[trio.abc.Stream], judge: Callable[[str], Judgement]
    ) -> None:
        self._listener = listener
        self._judge = judge
        self._socket: socket.socket | None = None
        self._pausing = False

    def __enter__(self) -> Self:
        if isinstance(self._listener, trio.SocketListener):
            # Trio's socket has no way to accept without waiting. This is the same one, by another descriptor.
            listening = self._listener.socket
            self._socket = socket.fromfd(listening.fileno(), listening.family, listening.type)
            self._socket.setblocking(False)
        return self

    async def accept(self) -> list[Accepted]:
        """Some of the connections that wait, or none where those that did were cut; a checkpoint.

        Raises: OSError where none can be accepted.
        """
        if self._socket is None:
            return await self._accept_one()
        if self._pausing:
            self._pausing = False
            await trio.sleep(PAUSE)
        else:
            await trio.lowlevel.wait_readable(self._socket)
        accepted: list[Accepted] = []
        cut = 0
        try:
            while len(accepted) < LET_IN_AT_ONCE and cut < CUT_AT_ONCE:
                connected, name = self._socket.accept()
                remote = _host(name)
                judgement = self._judge(remote)
                if judgement is Judgement.CUT:
                    cut += 1
                    reset(connected)
                else:
                    stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))
                    accepted.append(Accepted(stream, remote, judgement))
        except BlockingIOError:
            self._pausing = cut > 0
        except OSError:
            if not accepted and not cut:
                return await self._accept_one()  # Trio knows which errors are only those of one connection
        return accepted

    async def _accept_one(self) -> list[Accepted]:
        stream = await self._listener.accept()
        remote = _remote(stream)
        judgement = self._judge(remote)
        if judgement is Judgement.CUT:
            await trio.aclose_forcefully(stream)
            return []
        return [Accepted(stream, remote, judgement)]

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
