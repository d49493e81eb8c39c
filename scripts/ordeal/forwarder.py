"""Forwards TCP connections to one of several addresses: a load balancer, or a link that can be cut or stalled."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

Address: TypeAlias = tuple[str, int]

CHUNK: Final = 64 * 1024


@attrs.define(eq=False)
class Forwarder:
    """Each new connection goes to the first target that takes it.

    Attributes:
      targets: tells them, for each connection anew, the one to be tried first first.
      carried: how many connections came through.
    """

    targets: Callable[[], Sequence[Address]]
    carried: int = 0
    _open: set[trio.CancelScope] = attrs.Factory(set)
    _cut_until: float = -math.inf
    _stalled_until: float = -math.inf

    async def serve(
        self, host: str, port: int = 0, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Forward what connects until cancelled; tells where it listens."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._forward, listeners)
            task_status.started(listeners[0].socket.getsockname()[:2])

    def cut(self, seconds: float) -> None:
        """Reset all connections, and for so many seconds those that come."""
        self._cut_until = trio.current_time() + seconds
        for scope in self._open:
            scope.cancel()

    def stall(self, seconds: float) -> None:
        """Let nothing through for so many seconds; connections stay, and new ones are made."""
        self._stalled_until = trio.current_time() + seconds

    async def _forward(self, client: trio.SocketStream) -> None:
        """One connection; whatever goes wrong on the way ends it alone."""
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                if trio.current_time() < self._cut_until:
                    scope.cancel()
                await self._carrying()
                await self._join(client, await self._reach())
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                scope.cancel()
                await trio.lowlevel.checkpoint_if_cancelled()
            finally:
                self._open.discard(scope)
                if scope.cancel_called:
                    _reset_when_closed(client)
                client.socket.close()

    async def _reach(self) -> trio.SocketStream:
        for target in self.targets():
            try:
                return await trio.open_tcp_stream(*target)
            except OSError:
                continue
        raise ConnectionRefusedError

    async def _join(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.carried += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server)
                await self._pump(server, client)
                nursery.cancel_scope.cancel()  # what the client may say yet is heard by nobody
        except BaseException:
            _reset_when_closed(server)
            raise
        finally:
            server.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        while data := await source.receive_some(CHUNK):
            await self._carrying()
            await sink.send_all(data)
        await sink.send_eof()

    async def _carrying(self) -> None:
        while self._stalled_until > trio.current_time():  # noqa: ASYNC110 - a deadline that moves, not a poll
            await trio.sleep_until(self._stalled_until)


def _reset_when_closed(stream: trio.SocketStream) -> None:
    """Have the peer told that the connection broke, not that it ended."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
