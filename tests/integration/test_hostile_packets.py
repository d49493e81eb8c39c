"""Packets that end a stock trio-websocket server, and others as bad, over real sockets: each ends its own connection.

The server is the least that can stand on a `Transport`: an accept loop and an echo. It is *alive* when a client that
was there all the time gets its echo, nothing but `TransportClosed` came out of any connection, and tasks and file
descriptors are back at where they were.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import trio
import websockets.exceptions
import websockets.sync.client

from trio_ws.config import Config
from trio_ws.server.ending import TransportClosed
from trio_ws.server.poller import Poller, open_poller
from trio_ws.server.transport import Transport, open_transport

from ..server.certificates import write_certificate
from ..server.raw import CLOSE, CONTINUATION, PING, PONG, REQUEST, TEXT, Peer, close_frame, frame, request

pytestmark = pytest.mark.integration

TIMES = 100
AT_ONCE = 10
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
PATIENCE = 20.0  # seconds until a test that hangs has failed


def text_frame(payload: bytes) -> bytes:
    """A server's text frame."""
    length = len(payload)
    if length < 126:
        return bytes([0x81, length]) + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2) + payload
    return b"\x81\x7f" + length.to_bytes(8) + payload


@pytest.fixture(autouse=True, params=["task", "poller"])
def reads(request: pytest.FixtureRequest) -> None:
    """What reads: each test is run for both."""
    EchoServer.reads = request.param


@attrs.define
class EchoServer:
    """Echoes messages; `close` has it close with 4000."""

    reads: ClassVar[str] = "poller"
    nursery: trio.Nursery
    config: Config
    context: ssl.SSLContext | None = None
    handshake_timeout: float = 5
    port: int = 0
    ended: list[TransportClosed] = attrs.Factory(list)
    one_ended: trio.Event = attrs.Factory(trio.Event)
    failures: list[BaseException] = attrs.Factory(list)
    transports: list[Transport] = attrs.Factory(list)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        async with open_poller() as poller, listener, trio.open_nursery() as connections:
            while True:
                by = poller if self.reads == "poller" else None
                connections.start_soon(self.serve, await listener.accept(), by)

    async def serve(self, raw: trio.SocketStream, poller: Poller | None) -> None:
        stream = raw if self.context is None else trio.SSLStream(raw, self.context, server_side=True)
        try:
            with trio.move_on_after(self.handshake_timeout) as handshake:
                async with open_transport(
                    stream, config=self.config, remote="test", poller=poller
                ) as transport:
                    # Before the answer: a client that has seen it finds its transport here.
                    self.transports.append(transport)
                    await transport.accept(None)
                    handshake.deadline = float("inf")
                    await self.echo(transport)
        except TransportClosed as closed:
            self.ended.append(closed)
            self.one_ended.set()
        except Exception as exc:
            self.failures.append(exc)

    async def echo(self, transport: Transport) -> None:
        def take(payload: bytes) -> None:
            if payload == b"close":
                self.nursery.start_soon(transport.close, 4000, "as you said")
            else:
                transport.send_nowait(text_frame(payload))

        transport.open_lane(take)
        while True:
            take((await transport.receive()).encode())

    async def connect(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        connecting = trio.socket.socket()
        if receive_buffer is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await connecting.connect(("127.0.0.1", self.port))
        return trio.SocketStream(connecting)

    async def upgrade(self) -> Peer:
        peer = Peer(await self.connect())
        await peer.send(REQUEST)
        assert b" 101 " in await peer.head()
        return peer

    async def each_time(self, act: Callable[[], Any], times: int = TIMES) -> None:
        """Do it `times` times, some at once."""
        left = iter(range(times))

        async def worker() -> None:
            for _ in left:
                await act()

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(worker)


@asynccontextmanager
async def alive(config: Config | None = None, **options: Any) -> AsyncIterator[EchoServer]:
    """An echo server, checked after the block to have come through it."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            server = EchoServer(nursery, config or Config(), **options)
            await nursery.start(server.run)
            witness = await server.upgrade() if server.context is None else None
            tasks, descriptors = _tasks(), _descriptors()
            yield server
            while _tasks() > tasks or _descriptors() > descriptors:  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.01)
            if witness is not None:
                await witness.send(frame(TEXT, b"still there?"))
                assert await witness.text() == "still there?"
                await trio.aclose_forcefully(witness.stream)
            assert server.failures == []
            nursery.cancel_scope.cancel()


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


class TestTheHandshake:
    async def test_a_plain_get_then_a_reset(self) -> None:
        async with alive() as server:

            async def act() -> None:
                stream = await server.connect()
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                reset(stream)

            await server.each_time(act)

    async def test_a_plain_get_is_answered_and_left(self) -> None:
        async with alive() as server:

            async def act() -> None:
                peer = Peer(await server.connect())
                await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b" 426 " in await peer.head()
                assert b"WebSocket" in await peer.rest()
                await peer.stream.aclose()

            await server.each_time(act)

    @pytest.mark.parametrize(
        "head",
        [
            request(b"Sec-WebSocket-Protocol: \xff"),
            request(b"Sec-WebSocket-Extensions: \xff"),
            REQUEST.replace(b"Connection: Upgrade", b"Connection: Upgrade, \xff"),
            REQUEST.replace(b"localhost", b"\xff"),
            REQUEST.replace(b"/ws", b"/\xff"),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
            REQUEST.replace(b"GET", b"POST"),
            REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
            request(b"Content-Length: 5") + b"12345",
            request(b"X: " + b"a" * 20_000),
            request(*[b"X: a"] * 200),
        ],
    )
    async def test_bad_requests(self, head: bytes) -> None:
        async with alive() as server:

            async def act() -> None:
                peer = Peer(await server.connect())
                await peer.send(head)
                assert (await peer.head())[9:12] in (b"400", b"426", b"431")
                await peer.rest()
                await peer.stream.aclose()

            await server.each_time(act)
            assert all(closed.by == "us" for closed in server.ended)

    @pytest.mark.parametrize("sent", [b"", REQUEST[:40], REQUEST])
    @pytest.mark.parametrize("by_reset", [False, True])
    async def test_the_client_goes_in_the_middle(self, sent: bytes, by_reset: bool) -> None:
        async with alive() as server:

            async def act() -> None:
                stream = await server.connect()
                await stream.send_all(sent)
                if by_reset:
                    reset(stream)
                else:
                    await stream.aclose()

            await server.each_time(act)

    async def test_silence_is_ended(self) -> None:
        async with alive(handshake_timeout=0.2) as server:

            async def act() -> None:
                stream = await server.connect()
                await stream.send_all(b"GET /")
                assert await stream.receive_some() == b""
                await stream.aclose()

            await server.each_time(act, AT_ONCE)


class TestTheWebSocket:
    @pytest.mark.parametrize("answers", [False, True])
    async def test_a_ping_while_the_server_closes(self, answers: bool) -> None:
        async with alive() as server:

            async def act() -> None:
                peer = await server.upgrade()
                await peer.send(frame(TEXT, b"close"))
                assert await peer.closed() == (4000, "as you said")
                await peer.send(frame(PING, b"legal"), frame(TEXT, b"ignored"))
                if answers:
                    await peer.send(close_frame(4000))
                    assert await peer.rest() == b""
                await peer.stream.aclose()

            await server.each_time(act)

    async def test_a_mute_peer_is_closed_in_time(self) -> None:
        async with alive() as server:

            async def act() -> None:
                peer = await server.upgrade()
                await peer.send(frame(TEXT, b"close"))
                assert await peer.closed() == (4000, "as you said")
                with trio.fail_after(5):
                    assert await peer.rest() == b""
                await peer.stream.aclose()

            await server.each_time(act, AT_ONCE)

    async def test_the_reply_finds_nobody(self) -> None:
        async with alive() as server:

            async def act() -> None:
                peer = await server.upgrade()
                await peer.send(frame(TEXT, b"x" * 100) * 20, frame(TEXT, b"x" * 5000) * 3, frame(PING))
                assert isinstance(peer.stream, trio.SocketStream)
                reset(peer.stream)

            await server.each_time(act)

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (frame(TEXT, b"plain", masked=False), 1002),
            (frame(TEXT, b"rsv", rsv=0x40), 1002),
            (frame(CLOSE, b"x"), 1002),
            (frame(TEXT, b"\xff"), 1007),
            (frame(TEXT, b"x" * 300_000), 1009),
            (bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8) + b"mask" + bytes(300_000), 1009),
            (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1000, 1009),
        ],
    )
    async def test_a_breach_is_told_before_the_end(self, sent: bytes, code: int) -> None:
        """Also where much was sent that nobody reads any more: a reset would take the close frame with it."""
        async with alive() as server:

            async def act() -> None:
                peer = await server.upgrade()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.send, sent)
                    got = await peer.closed()
                assert got is not None
                assert got[0] == code
                await peer.send(close_frame(code))
                assert await peer.rest() == b""
                await peer.stream.aclose()

            await server.each_time(act)

    async def test_a_ping_flood_and_nobody_reads(self) -> None:
        async with alive() as server:
            stream = await server.connect(receive_buffer=4096)
            await stream.send_all(REQUEST)
            await stream.receive_some(4096)
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    assert server.transports[-1].backlog < 70_000
                    await stream.send_all(frame(PING, b"p" * 125) * 100)
            await stream.aclose()
            await server.one_ended.wait()
            assert server.ended[0].reason in ("control_flood", "write_timeout")

    async def test_a_peer_that_never_reads(self) -> None:
        async with alive(Config(write_timeout=0.2)) as server:
            stream = await server.connect(receive_buffer=4096)
            await stream.send_all(REQUEST)
            await stream.receive_some(4096)
            transport = server.transports[-1]
            while transport.backlog == 0:
                transport.send_nowait(text_frame(b"x" * 65_000))
            await server.one_ended.wait()
            assert server.ended[0].reason == "write_timeout"
            await stream.aclose()

    async def test_segments_of_a_byte(self) -> None:
        async with alive() as server:
            peer = await server.upgrade()
            for byte in frame(TEXT, b"slow") + frame(PING, b"p") + frame(TEXT, "€".encode(), fin=False):
                await peer.send(bytes([byte]))
            await peer.send(frame(CONTINUATION, b"!"))
            got = sorted([await peer.frame() or (0, b"") for _ in range(3)])
            assert got == [(TEXT, b"slow"), (TEXT, "€!".encode()), (PONG, b"p")]
            await peer.stream.aclose()

    async def test_small_messages_are_not_held_back(self) -> None:
        async with alive() as server:
            peer = await server.upgrade()
            stream = server.transports[-1]._guarded.raw
            assert isinstance(stream, trio.SocketStream)
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await peer.stream.aclose()


def converse(uri: str, **options: Any) -> None:
    """What a well-behaved foreign client does: everything comes back, in order."""
    with websockets.sync.client.connect(uri, max_size=None, **options) as client:
        texts = ["small", "", "ä€😀", "x" * 4096, "x" * 4097, "x" * 65_536, "last"]
        for text in texts:
            client.send(text)
        assert [client.recv() for _ in texts] == texts
        client.send(["in ", "three ", "fragments"])
        client.send("after")
        assert client.recv() == "in three fragments"
        assert client.recv() == "after"
        assert client.ping().wait(5)
        client.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            client.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "as you said")


class TestAForeignClient:
    async def test_over_tcp(self) -> None:
        async with alive() as server:
            await trio.to_thread.run_sync(converse, f"ws://127.0.0.1:{server.port}/ws?user=ada")

    async def test_over_tls(self, tmp_path: Path) -> None:
        serving, trusting = _contexts(tmp_path)
        async with alive(context=serving) as server:
            uri = f"wss://localhost:{server.port}/ws"

            def talk() -> None:
                converse(uri, ssl=trusting)

            await trio.to_thread.run_sync(talk)
            # And what no TLS is, or ends in the middle of it.
            for sent in (b"", REQUEST, b"\x16\x03\x01"):
                stream = await server.connect()
                await stream.send_all(sent)
                reset(stream)


def _contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context with a fresh certificate for localhost, and a client's that trusts it."""
    path = directory / "localhost.pem"
    write_certificate(path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(path)
    return serving, ssl.create_default_context(cafile=path)
