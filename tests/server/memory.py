"""A server without sockets: a listener over memory streams, and a client that speaks raw frames to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
import wsproto
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

import trio_ws
from trio_ws.server.handshake import SUBPROTOCOL


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the server's ends of memory streams."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](16)

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()

    async def connect(self) -> trio.StapledStream[Any, Any]:
        client, server = trio.testing.memory_stream_pair()
        await self._send.send(server)
        return client


class Closed(Exception):
    """The server closed the WebSocket, or refused it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WireClient:
    """A client that sends what it is told and shows what comes; it answers nothing by itself."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.pings = 0
        self.answers_pings = True
        self._frames: list[dict[str, Any]] = []
        self._text = ""

    async def open(
        self, target: str = "/ws", *, subprotocols: tuple[str, ...] = (SUBPROTOCOL,), headers: Any = ()
    ) -> str | None:
        """Shake hands; returns the subprotocol. Raises `Closed` with the HTTP status where it is refused."""
        request = Request(
            host="server", target=target, subprotocols=list(subprotocols), extra_headers=list(headers)
        )
        await self.stream.send_all(self.ws.send(request))
        while True:
            for event in await self._read():
                if isinstance(event, AcceptConnection):
                    return event.subprotocol
                if isinstance(event, RejectConnection):
                    status = event.status_code
                if isinstance(event, RejectData) and event.body_finished:
                    raise Closed(status, bytes(event.data).decode())

    async def _read(self) -> list[Any]:
        data = await self.stream.receive_some()
        if not data:
            raise Closed(1006, "end of stream")
        self.ws.receive_data(bytes(data))
        return list(self.ws.events())

    async def send(self, *frames: Any) -> None:
        """Send frames, as one message: a single one as it is, several as a batch; a str as it stands."""
        text = (
            frames[0]
            if isinstance(frames[0], str)
            else json.dumps(list(frames) if len(frames) > 1 else frames[0])
        )
        await self.stream.send_all(self.ws.send(TextMessage(data=text)))

    async def frame(self) -> dict[str, Any]:
        """The next frame, out of its batch."""
        while not self._frames:
            for event in await self._read():
                if isinstance(event, TextMessage):
                    self._text += event.data
                    if not event.message_finished:
                        continue
                    text, self._text = self._text, ""
                    value = json.loads(text)
                    self._frames += value if isinstance(value, list) else [value]
                elif isinstance(event, CloseConnection):
                    await self.stream.send_all(self.ws.send(event.response()))
                    self._frames.append({"closed": event.code, "reason": event.reason})
                elif isinstance(event, Ping):
                    self.pings += 1
                    if self.answers_pings:
                        await self.stream.send_all(self.ws.send(Pong(event.payload)))
        frame = self._frames.pop(0)
        if "closed" in frame:
            raise Closed(frame["closed"], frame["reason"])
        return frame

    async def until(self, kind: str) -> dict[str, Any]:
        """The next frame of this kind; others are passed over."""
        while True:
            frame = await self.frame()
            if frame.get("t") == kind:
                return frame

    async def hello(self, **fields: Any) -> dict[str, Any]:
        """Say hello, and return the welcome."""
        await self.send({"t": "hello"} | fields)
        return await self.until("welcome")

    async def closed(self) -> Closed:
        """How the server closes it, whatever comes before."""
        try:
            while True:
                await self.frame()
        except Closed as closed:
            return closed


class Server:
    """A served hub in memory."""

    def __init__(self, hub: trio_ws.Hub, listener: MemoryListener) -> None:
        self.hub = hub
        self.listener = listener

    async def dial(self) -> WireClient:
        return WireClient(await self.listener.connect())

    async def client(self, user: str = "ada", **hello: Any) -> tuple[WireClient, dict[str, Any]]:
        """A client that has been welcomed, and its welcome."""
        client = await self.dial()
        await client.open()
        return client, await client.hello(user=user, **hello)


@asynccontextmanager
async def serving(config: trio_ws.Config | None = None, **options: Any) -> AsyncIterator[Server]:
    """A hub and its listener, in memory, while the block runs; nothing of it may be left at the end."""
    listener = MemoryListener()
    async with trio_ws.open_hub(config) as hub, trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: trio_ws.serve(hub, listeners=[listener], task_status=task_status, **options)
        )
        yield Server(hub, listener)
        assert hub.engine.books.balanced
        nursery.cancel_scope.cancel()
    assert not hub.engine.attachments
