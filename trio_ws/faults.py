"""A network that can be broken on purpose: it forwards TCP connections to the server, until it is told not to.

Connections belong to a *link*, which a client names in the query of its URL (``?link=7f3a``): so each page breaks its
own network, and no one else's. Three faults:

    cut        all connections of the link are reset, and new ones are for a while
    silence    they stay open, new ones too, and nothing gets through in either direction until it is over
    half-open  they stay open, and what is sent on them is lost, as after a lost route; new ones are as they should be

Nothing is buffered but what one read brings; a silent connection is not read, so that TCP holds its peer up.
"""

from __future__ import annotations

import math
import re
import socket
import struct
from typing import Final

import attrs
import trio

HEAD: Final = 16 * 1024
"""Bytes of the request in which the link must be named."""
HEAD_TIMEOUT: Final = 5.0
CHUNK: Final = 16 * 1024
MAX_LINKS: Final = 1000
MAX_CONNECTIONS: Final = 500

_LINK = re.compile(rb"[?&]link=([A-Za-z0-9_-]{1,64})")


@attrs.define(eq=False)
class _Wire:
    """One connection of a link, and whether what is sent on it is lost."""

    scope: trio.CancelScope
    lost: bool = False


@attrs.define
class _Link:
    """What is wrong with a link, and until when, on Trio's clock; and the connections that it has."""

    cut_until: float = -math.inf
    silent_until: float = -math.inf
    wires: set[_Wire] = attrs.field(factory=set)


class FaultyNetwork:
    """Forwards to one address.

    Args:
      host, port: the server's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: dict[bytes, _Link] = {}
        self._open = 0

    async def serve(
        self,
        host: str,
        port: int = 0,
        *,
        task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Forward what connects to `host` and `port` until cancelled; tells the addresses.

        Raises:
          OSError: the address can't be had.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        addresses = [listener.socket.getsockname()[:2] for listener in listeners]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._forward, listeners)
            task_status.started(addresses)

    def cut(self, link: str, seconds: float = 0.0) -> int:
        """Reset all connections of `link`, and those to come for `seconds`; returns how many there were."""
        state = self._link(link.encode())
        state.cut_until = trio.current_time() + seconds
        state.silent_until = -math.inf
        for wire in state.wires:
            wire.scope.cancel()
        return len(state.wires)

    def silence(self, link: str, seconds: float) -> int:
        """Let nothing through on the connections of `link` for `seconds`; returns how many there are."""
        state = self._link(link.encode())
        state.silent_until = trio.current_time() + seconds
        return len(state.wires)

    def half_open(self, link: str) -> int:
        """Lose what is sent on the connections that `link` has now; returns how many there are.

        Neither end learns that the other has closed.
        """
        state = self._link(link.encode())
        for wire in state.wires:
            wire.lost = True
        return len(state.wires)

    def _link(self, name: bytes) -> _Link:
        if name not in self._links and len(self._links) >= MAX_LINKS:
            idle = next((known for known, link in self._links.items() if not link.wires), None)
            if idle is not None:
                del self._links[idle]
        return self._links.setdefault(name, _Link())

    async def _forward(self, client: trio.SocketStream) -> None:
        """One connection; whatever goes wrong on the way ends it alone."""
        if self._open >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(client)
            return
        self._open += 1
        try:
            with trio.CancelScope() as scope:
                await self._connect(client, scope)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._open -= 1
            _reset(client)

    async def _connect(self, client: trio.SocketStream, scope: trio.CancelScope) -> None:
        head = b""
        with trio.move_on_after(HEAD_TIMEOUT):
            head = await _head(client)
        if not head:
            return
        found = _LINK.search(head.partition(b"\r\n")[0])
        link = self._link(found[1] if found else b"")
        if link.cut_until > trio.current_time():
            return
        server = await trio.open_tcp_stream(*self._target)
        wire = _Wire(scope)
        link.wires.add(wire)
        try:
            await _quiet(link)
            await server.send_all(head)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, client, server, link, wire)
                nursery.start_soon(_pump, server, client, link, wire)
        finally:
            link.wires.discard(wire)
            _reset(server)


async def _head(stream: trio.SocketStream) -> bytes:
    """The request up to its end, and what came with it; empty where there is none."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD:
        data = await stream.receive_some(CHUNK)
        if not data:
            return b""
        head += data
    return head


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, link: _Link, wire: _Wire) -> None:
    """Forward one direction to its end; the connection ends with the first that does, but for one that is lost: its
    ends part one by one."""
    try:
        while True:
            await _quiet(link)
            data = await source.receive_some(CHUNK)
            await _quiet(link)
            if not data:
                return
            if not wire.lost:
                await sink.send_all(data)
    except trio.BrokenResourceError:
        pass
    finally:
        if not wire.lost:
            wire.scope.cancel()


async def _quiet(link: _Link) -> None:
    """Wait out a silence; another one may have begun meanwhile."""
    while link.silent_until > trio.current_time():  # noqa: ASYNC110 - a deadline that moves, not a poll
        await trio.sleep_until(link.silent_until)


def _reset(stream: trio.SocketStream) -> None:
    """Close without a goodbye: the peer is sent a reset."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    stream.socket.close()
