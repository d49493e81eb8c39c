"""Clients of other makers, each behind the same four calls: see `Foreign`."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio
import trio_websocket
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client
import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

from ...npm import MODULES, need_packages

V1 = "trio-ws.v1"
HERE = Path(__file__).parent


class Foreign(Protocol):
    """One connection of a foreign client. `subprotocol` is what the server has selected."""

    subprotocol: str | None

    async def send(self, text: str) -> None: ...
    async def receive(self) -> str: ...
    async def closed(self) -> int: ...


Open = Callable[[str, bool], AbstractAsyncContextManager[Foreign]]
"""Connects to an address, as a client of v1 or as a plain one."""


class _Sync:
    def __init__(self, connection: websockets.sync.client.ClientConnection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol

    async def send(self, text: str) -> None:
        await trio.to_thread.run_sync(self._connection.send, text)

    async def receive(self) -> str:
        return str(await trio.to_thread.run_sync(partial(self._connection.recv, timeout=10)))

    async def closed(self) -> int:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            await self.receive()
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code


@asynccontextmanager
async def websockets_sync(url: str, v1: bool) -> AsyncIterator[Foreign]:
    """The `websockets` library, in threads."""
    offered = [websockets.Subprotocol(V1)] if v1 else None
    stack = ExitStack()

    def connect() -> websockets.sync.client.ClientConnection:
        return stack.enter_context(websockets.sync.client.connect(url, subprotocols=offered))

    connection = await trio.to_thread.run_sync(connect)
    try:
        yield _Sync(connection)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(stack.close)


class _Asyncio:
    """A client that lives in asyncio, in a thread of its own: what it is told and what it tells goes through queues."""

    def __init__(self) -> None:
        self.subprotocol: str | None = None
        self._told: asyncio.Queue[str | None] = asyncio.Queue()
        self._send, self._receive = trio.open_memory_channel[str | int](1000)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.opened = trio.Event()

    def run(self, url: str, v1: bool) -> None:
        asyncio.run(self._converse(url, v1))

    async def _converse(self, url: str, v1: bool) -> None:
        self._loop = asyncio.get_running_loop()
        offered = [websockets.Subprotocol(V1)] if v1 else None
        async with websockets.asyncio.client.connect(url, subprotocols=offered) as connection:
            self.subprotocol = connection.subprotocol
            trio.from_thread.run_sync(self.opened.set)
            sending = asyncio.create_task(self._carry(connection))
            try:
                async for message in connection:
                    trio.from_thread.run_sync(self._send.send_nowait, str(message))
            except websockets.exceptions.ConnectionClosedError:
                pass  # what it was closed with is told below
            sending.cancel()
            trio.from_thread.run_sync(self._send.send_nowait, connection.close_code or 1006)

    async def _carry(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        while (text := await self._told.get()) is not None:
            await connection.send(text)
        await connection.close()

    def tell(self, text: str | None) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.put_nowait, text)

    async def send(self, text: str) -> None:
        self.tell(text)

    async def receive(self) -> str:
        message = await self._receive.receive()
        assert isinstance(message, str), message
        return message

    async def closed(self) -> int:
        code = await self._receive.receive()
        assert isinstance(code, int), code
        return code


@asynccontextmanager
async def websockets_asyncio(url: str, v1: bool) -> AsyncIterator[Foreign]:
    """The `websockets` library, on asyncio."""
    client = _Asyncio()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, client.run, url, v1)
        await client.opened.wait()
        try:
            yield client
        finally:
            client.tell(None)


class _Trio:
    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol

    async def send(self, text: str) -> None:
        await self._connection.send_message(text)

    async def receive(self) -> str:
        return str(await self._connection.get_message())

    async def closed(self) -> int:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await self.receive()
        assert caught.value.reason is not None
        return int(caught.value.reason.code)


@asynccontextmanager
async def trio_websocket_client(url: str, v1: bool) -> AsyncIterator[Foreign]:
    """The stock client of trio-websocket, over a stream of ours: it leaves its own ones open."""
    host, _, target = url.removeprefix("ws://").partition("/")
    address, _, port = host.partition(":")
    async with await trio.open_tcp_stream(address, int(port)) as stream, trio.open_nursery() as nursery:
        offered = [V1] if v1 else None
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, host, "/" + target, subprotocols=offered
        )
        yield _Trio(connection)
        await connection.aclose()
        nursery.cancel_scope.cancel()


class _Wsproto:
    """wsproto over a socket, with nothing in between."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._events: list[Any] = []
        self.subprotocol: str | None = None

    async def open(self, host: str, target: str, v1: bool) -> None:
        await self._tell(Request(host=host, target=target, subprotocols=[V1] if v1 else []))
        self.subprotocol = (await self._next(AcceptConnection)).subprotocol

    async def _tell(self, event: Any) -> None:
        await self._stream.send_all(self._ws.send(event))

    async def _next(self, kind: type[Any]) -> Any:
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, Ping):
                    await self._tell(event.response())
                else:
                    assert isinstance(event, kind), event
                    return event
            self._ws.receive_data(await self._stream.receive_some() or None)
            self._events += self._ws.events()

    async def send(self, text: str) -> None:
        await self._tell(TextMessage(data=text))

    async def receive(self) -> str:
        parts, finished = "", False
        while not finished:
            event = await self._next(TextMessage)
            parts, finished = parts + event.data, event.message_finished
        return parts

    async def closed(self) -> int:
        event = await self._next(CloseConnection)
        await self._tell(event.response())
        return int(event.code)


@asynccontextmanager
async def raw_wsproto(url: str, v1: bool) -> AsyncIterator[Foreign]:
    """wsproto alone."""
    host, _, target = url.removeprefix("ws://").partition("/")
    address, _, port = host.partition(":")
    async with await trio.open_tcp_stream(address, int(port)) as stream:
        client = _Wsproto(stream)
        await client.open(host, "/" + target, v1)
        yield client


class Lines:
    """A client in a process of its own: it tells what happens in lines of JSON, and is told what to send."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""
        self.subprotocol: str | None = None

    async def next(self, kind: str) -> Any:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            more = await self._process.stdout.receive_some()
            assert more, "the client has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        told = json.loads(line)
        assert kind in told, told
        return told[kind]

    async def send(self, text: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(text).encode() + b"\n")

    async def receive(self) -> str:
        return str(await self.next("message"))

    async def closed(self) -> int:
        return int(await self.next("closed"))


@asynccontextmanager
async def node_ws(url: str, v1: bool) -> AsyncIterator[Foreign]:
    """npm's `ws`, under Node."""
    need_packages()
    process = await trio.lowlevel.open_process(
        [str(shutil.which("node")), str(HERE / "ws.cjs"), str(MODULES / "ws"), url, V1 if v1 else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    client = Lines(process)
    try:
        client.subprotocol = await client.next("open") or None
        yield client
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


CLIENTS: dict[str, Open] = {
    "websockets, sync": websockets_sync,
    "websockets, asyncio": websockets_asyncio,
    "trio-websocket": trio_websocket_client,
    "wsproto": raw_wsproto,
    "npm ws": node_ws,
}
