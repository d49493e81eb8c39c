"""The worlds in which a client comes over byte streams: real sockets, and memory on a mock clock.

The server's end of a WebSocket is wsproto, so that what the client under test speaks to shares nothing with this
project's own server.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .referee import Seen

SLACK: Final = 3.0
"""Seconds by which a real client on a busy machine may be late."""
START_TIMEOUT: Final = 30.0
EXIT_TIMEOUT: Final = 5.0


@attrs.define
class _Connection:
    """The server's end of one connection."""

    number: int
    stream: Any
    ws: WSConnection = attrs.field(factory=lambda: WSConnection(ConnectionType.SERVER))
    over: bool = False
    _writing: trio.Lock = attrs.field(factory=trio.Lock)

    async def write(self, event: Any) -> None:
        """Sends; to a peer that is gone, nothing."""
        try:
            async with self._writing:
                await self.stream.send_all(self.ws.send(event))
        except (LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass


class StreamWorld:
    """See `referee.World`. Connections are handed to `serve`, reports to `report`.

    Args:
      slack, calendar: see there.
      command: hands a command to the client.

    Attributes:
      ready: the client's process is about to connect.
    """

    def __init__(
        self, *, slack: float, command: Callable[[Any], Any], calendar: Callable[[], float] = time.time
    ) -> None:
        self.slack = slack
        self.calendar = calendar
        self.ready = trio.Event()
        self._command = command
        self._give, self._take = trio.open_memory_channel[Seen](math.inf)
        self._connections: list[_Connection] = []

    # --- For the referee ---

    def now(self) -> float:
        return trio.current_time()

    async def next(self, deadline: float) -> Seen | None:
        with trio.move_on_at(deadline):
            return await self._take.receive()
        return None

    async def answer(self, how: str) -> None:
        if how == "accept":
            await self._newest.write(AcceptConnection(subprotocol="trio-ws.v1"))
        elif how == "refuse":
            await self._newest.write(RejectConnection(status_code=503, headers=[(b"content-length", b"0")]))
            await self.cut()

    async def send(self, message: str | bytes) -> None:
        await self._newest.write(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def close(self, code: int, reason: str) -> None:
        self._newest.over = True
        await self._newest.write(CloseConnection(code=code, reason=reason))

    async def cut(self) -> None:
        self._newest.over = True
        await _cut(self._newest.stream)

    async def command(self, command: Any) -> None:
        await self._command(command)

    # --- For who brings the client ---

    def report(self, value: Any) -> None:
        """The client has printed this."""
        if "ready" in value:
            self.ready.set()
            return
        self._give.send_nowait(Seen(trio.current_time(), "report", value))

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Reads one connection to its end, and closes it."""
        connection = _Connection(len(self._connections) + 1, stream)
        self._connections.append(connection)
        try:
            await self._read(connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            self._tell(connection, "gone", None)
        finally:
            await trio.aclose_forcefully(stream)

    @property
    def _newest(self) -> _Connection:
        return self._connections[-1]

    def _tell(self, connection: _Connection, what: str, value: Any) -> None:
        if not connection.over:
            self._give.send_nowait(Seen(trio.current_time(), what, value, connection.number))
            connection.over = what == "gone"

    async def _read(self, connection: _Connection) -> None:
        text = ""
        while data := await connection.stream.receive_some():
            connection.ws.receive_data(data)
            for event in connection.ws.events():
                match event:
                    case Request():
                        self._tell(connection, "connect", list(event.subprotocols))
                    case TextMessage():
                        text += event.data
                        if event.message_finished:
                            self._tell(connection, "message", text)
                            text = ""
                    case BytesMessage():
                        self._tell(connection, "message", bytes(event.data))
                    case Ping():
                        await connection.write(event.response())
                    case CloseConnection():
                        self._tell(connection, "gone", event.code)
                        if not connection.over or connection.ws.state.name == "REMOTE_CLOSING":
                            await connection.write(event.response())
                        return
        self._tell(connection, "gone", None)


async def _cut(stream: Any) -> None:
    """Ends a connection as a network does."""
    try:
        if isinstance(stream, trio.SocketStream):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # it has ended already
        pass
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def over_sockets(client: list[str], options: Any) -> AsyncIterator[StreamWorld]:
    """A world with a client process in it, which is given the URL and its options, and is ended with the block.

    Args:
      client: the command.
      options: the vector's.
    """

    async def command(value: Any) -> None:
        assert process.stdin is not None
        await process.stdin.send_all(json.dumps(value).encode() + b"\n")

    world = StreamWorld(slack=SLACK, command=command)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, world.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        process = await trio.lowlevel.open_process(
            [*client, f"ws://127.0.0.1:{port}/ws", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        nursery.start_soon(_read_reports, process, world)
        try:
            with trio.move_on_after(START_TIMEOUT):
                await world.ready.wait()
            yield world
        finally:
            with trio.move_on_after(EXIT_TIMEOUT, shield=True):
                process.kill()
                await process.wait()
            nursery.cancel_scope.cancel()


async def _read_reports(process: trio.Process, world: StreamWorld) -> None:
    assert process.stdout is not None
    rest = b""
    async for data in process.stdout:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            try:
                world.report(json.loads(line))
            except (ValueError, TypeError):
                print(f"the client prints what is no report: {line[:200]!r}", file=sys.stderr)


def virtual_calendar() -> float:
    """The calendar of who lives on a mock clock."""
    return 1_700_000_000 + trio.current_time()


@asynccontextmanager
async def in_memory(run: Callable[..., Any], options: Any) -> AsyncIterator[StreamWorld]:
    """A world on the running clock with a client of this process in it, over memory streams.

    Args:
      run: the client, an async function of a way to connect, the options, where to report, a channel of commands, and
        its calendar.
      options: the vector's.
    """
    give, take = trio.open_memory_channel[Any](100)
    world = StreamWorld(slack=0.0, command=give.send, calendar=virtual_calendar)
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(world.serve, theirs)
            await trio.lowlevel.checkpoint()
            return ours

        nursery.start_soon(run, connect, options, world.report, take, world.calendar)
        yield world
        nursery.cancel_scope.cancel()
