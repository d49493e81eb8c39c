"""A scripted server for the client's tests: memory streams, wsproto, and no task of its own, so that a test says in
one place what the server does and when."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from trio_ws.client import Client, connect

URL = "ws://test/ws"
EPOCH = "e1"
SESSION = "s1"

Pipe = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def event(seq: int, type: str = "token", **more: Any) -> dict[str, Any]:
    """An event frame."""
    return {"t": "event", "seq": seq, "id": f"id{seq}", "type": type, "payload": {"n": seq}, "ts": 1.0} | more


def gap(first: int, last: int, reason: str = "evicted", **more: Any) -> dict[str, Any]:
    """A gap frame."""
    return {
        "t": "gap",
        "from": first,
        "to": last,
        "reason": reason,
        "lost": {"token": 1},
        "critical": 0,
    } | more


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: Pipe) -> None:
        self.stream: Any = stream
        self.ws = WSConnection(ConnectionType.SERVER)
        self.request: Request | None = None
        self.pongs = 0
        self.greeting: list[dict[str, Any]] = []
        self._frames: deque[dict[str, Any]] = deque()

    async def next(self) -> Any:
        """The next thing that wsproto makes of what comes; None at EOF."""
        while True:
            for found in self.ws.events():
                return found
            data = await self.stream.receive_some()
            if not data:
                return None
            self.ws.receive_data(data)

    async def handshake(self, subprotocol: str | None = "trio-ws.v1") -> None:
        self.request = await self.next()
        assert isinstance(self.request, Request)
        await self.stream.send_all(self.ws.send(AcceptConnection(subprotocol=subprotocol)))

    async def refuse(
        self, status: int, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b""
    ) -> None:
        assert isinstance(await self.next(), Request)
        headers = [*(headers or []), (b"content-length", str(len(body)).encode())]
        data = self.ws.send(RejectConnection(status_code=status, headers=headers, has_body=True))
        await self.stream.send_all(data + self.ws.send(RejectData(data=body)))

    async def receive(self) -> dict[str, Any] | int | None:
        """The next frame; the code of a close; None at EOF."""
        while not self._frames:
            found = await self.next()
            if found is None:
                return None
            if isinstance(found, CloseConnection):
                return int(found.code)
            if isinstance(found, Pong):
                self.pongs += 1
                continue
            self.queue(found)
        return self._frames.popleft()

    def queue(self, found: Any) -> None:
        """Has `receive` give the frames of a message."""
        assert isinstance(found, TextMessage), found
        assert found.message_finished
        value = json.loads(found.data)
        self._frames.extend(value if isinstance(value, list) else [value])

    @property
    def queued(self) -> int:
        """How many frames `receive` has at once."""
        return len(self._frames)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All frames up to the next of that kind, which is the last of them."""
        frames = []
        while True:
            frame = await self.receive()
            assert isinstance(frame, dict), f"{kind} expected, not {frame}, after {frames}"
            frames.append(frame)
            if frame["t"] == kind:
                return frames

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next frame, which must be of that kind."""
        frame = await self.receive()
        assert isinstance(frame, dict), f"{kind} expected, not {frame}"
        assert frame["t"] == kind, frame
        return frame

    async def send(self, *frames: dict[str, Any]) -> None:
        await self.say(json.dumps(frames[0] if len(frames) == 1 else frames))

    async def say(self, text: str) -> None:
        await self.stream.send_all(self.ws.send(TextMessage(data=text)))

    async def say_bytes(self, data: bytes) -> None:
        await self.stream.send_all(self.ws.send(BytesMessage(data=data)))

    async def ws_ping(self) -> None:
        await self.stream.send_all(self.ws.send(Ping()))

    async def welcome(self, seq: int = 0, **over: Any) -> None:
        heartbeat = {"active": 2.0, "idle": 25.0, "grace": 2.0} | over.pop("heartbeat", {})
        ack = {"events": 32, "delay": 0.05} | over.pop("ack", {})
        frame = {
            "t": "welcome",
            "session": SESSION,
            "epoch": EPOCH,
            "seq": seq,
            "head": seq,
            "resumed": False,
        }
        await self.send(frame | {"heartbeat": heartbeat, "ack": ack} | over)

    async def ping(self, next: float = 1000.0, seq: int = 0) -> None:
        """A heartbeat; by default one that leaves the client in peace for the rest of a test."""
        await self.send({"t": "ping", "seq": seq, "next": next})

    async def close(self, code: int, reason: str = "") -> None:
        """The closing handshake, begun or answered, and EOF."""
        await self.stream.send_all(self.ws.send(CloseConnection(code=code, reason=reason)))
        if isinstance(self.stream, trio.StapledStream):
            self.stream.send_stream.close()

    async def fail(self, code: int, **more: Any) -> None:
        """As a server ends a connection: the error frame, then the close."""
        if code >= 4000:
            await self.send({"t": "error", "code": code, "reason": "because", "fatal": True} | more)
        await self.close(code, "because")

    def cut(self) -> None:
        """The connection breaks, both ways."""
        self.stream.send_stream.close()
        self.stream.receive_stream.close()

    async def bye(self) -> list[Any]:
        """What the client says until its close, which is answered; 1000 must be its code."""
        said = []
        while True:
            frame = await self.receive()
            if isinstance(frame, int):
                assert frame == 1000
                await self.close(1000)
                return said
            assert frame is not None, f"EOF instead of a close, after {said}"
            said.append(frame)


class MidRandom(random.Random):
    """Jitter that is always in the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class ClientEnd(trio.abc.Stream):
    """The client's end of a connection, whose faults a test can choose.

    Attributes:
      closed: the client has closed it.
      stuck: writes are taken by nobody from now on, and never return.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.closed = False
        self.stuck = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stuck:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


class Server:
    """Where the client under test connects to.

    Attributes:
      attempts: when the client tried to connect.
      absent: nobody listens.
      ends: the client's ends of all connections.
    """

    def __init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[Peer](100)
        self.attempts: list[float] = []
        self.absent = False
        self.ends: list[ClientEnd] = []

    async def open_stream(self) -> trio.abc.Stream:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.absent:
            raise ConnectionRefusedError("nobody there")
        ours, theirs = memory_stream_pair()
        self.ends.append(ClientEnd(ours))
        self._give.send_nowait(Peer(theirs))
        return self.ends[-1]

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Client]:
        """A client of this server, with jitter in the middle. What it leaves open or running is a failure."""
        assert isinstance(trio.lowlevel.current_clock(), MockClock), "the test must ask for `clock`"
        tasks = trio.lowlevel.current_statistics().tasks_living
        try:
            async with connect(
                URL, **({"rng": MidRandom(7), "open_stream": self.open_stream} | options)
            ) as client:
                yield client
        finally:
            assert all(end.closed for end in self.ends), "a stream was left open"
            assert trio.lowlevel.current_statistics().tasks_living == tasks, "a task was left behind"

    async def accept(self) -> Peer:
        """The next TCP connection."""
        return await self._take.receive()

    async def upgraded(self) -> Peer:
        """The next connection, up to its upgrade."""
        peer = await self.accept()
        await peer.handshake()
        return peer

    async def hello(self) -> tuple[Peer, dict[str, Any]]:
        """The next connection, up to its hello."""
        peer = await self.upgraded()
        return peer, await peer.expect("hello")

    async def session(self, seq: int = 0, **over: Any) -> Peer:
        """The next connection, welcomed and live at `seq`, and left in peace by the liveness deadline."""
        peer, hello = await self.hello()
        peaceful = {"resumed": "session" in hello, "heartbeat": {"active": 1e6}}
        await peer.welcome(seq, **(peaceful | over))
        await peer.send({"t": "live", "seq": seq}, {"t": "ping", "seq": seq, "next": 1e6})
        peer.greeting = await peer.until("pong")
        return peer
