"""One HTTP connection over streams in memory: what is read, what is answered, and that nothing waits for ever."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from starlette.types import ASGIApp, Receive, Scope, Send
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_ws.admin import connection, create_app
from trio_ws.admin.connection import HEAD_TIMEOUT, LINGER, WRITE_TIMEOUT, Connection, hypercorn_config
from trio_ws.hub import open_hub

POST = b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with its path; reads the body first, where the path is ``/read``."""
    if scope["type"] != "http":
        await send({"type": "websocket.close"})
        return
    body = scope["path"].encode()
    if scope["path"] == "/fail":
        raise RuntimeError("a bug")
    if scope["path"] == "/wait":
        await trio.sleep(60)
    if scope["path"] == "/read":
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            body += message.get("body", b"") if message["type"] == "http.request" else b" gone"
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"endless", "more_body": True})
            await trio.sleep(1)
    if scope["path"] == "/large":
        body = b"x" * 1_000_000
    headers = [(b"content-length", str(len(body)).encode())]
    status = 405 if scope["method"] == "CONNECT" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(
    pair: Any = memory_stream_pair, app: ASGIApp = app
) -> AsyncIterator[trio.StapledStream[Any, Any]]:
    """A client's end of a connection that is served until it ends; fails the test if it never does."""
    ours, theirs = pair()

    async def serve() -> None:
        try:
            await Connection(theirs, app, hypercorn_config()).run()
        finally:
            await trio.aclose_forcefully(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield ours
        with trio.fail_after(200):
            while await ours.receive_some(65536):
                pass


async def read(stream: trio.abc.ReceiveStream, end: bytes | None = None) -> bytes:
    """What comes until `end`, or until the peer's end."""
    data = bytearray()
    while end is None or not data.endswith(end):
        piece = await stream.receive_some(65536)
        if not piece:
            assert end is None, bytes(data)
            break
        data += piece
    return bytes(data)


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", data)]


async def test_calls_follow_each_other(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        for _ in range(3):
            await stream.send_all(POST)
            assert (await read(stream, b"/readhello")).startswith(b"HTTP/1.1 200")
        await stream.send_eof()


async def test_calls_may_be_sent_ahead(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(POST + GET + POST)
        await stream.send_eof()
        data = await read(stream)
        assert statuses(data) == [200, 200, 200]
        assert data.index(b"/readhello") < data.rindex(b"\r\n\r\n/HTTP") < data.rindex(b"/readhello")


async def test_a_client_that_has_said_all_is_answered(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await stream.send_eof()
        assert (await read(stream)).endswith(b"/wait")
        assert trio.current_time() == pytest.approx(60)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
    ],
)
async def test_a_head_has_to_come_in_time(autojump_clock: MockClock, data: bytes) -> None:
    async with connected() as stream:
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.1)
        answer = await read(stream)
        assert statuses(answer) == ([400] if data else [])
        assert trio.current_time() == pytest.approx(HEAD_TIMEOUT)


async def test_an_idle_connection_is_closed(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await trio.sleep(HEAD_TIMEOUT - 1)
        await stream.send_all(GET)
        await read(stream, b"\r\n\r\n/")
        assert await read(stream) == b""
        assert trio.current_time() == pytest.approx(2 * HEAD_TIMEOUT - 1)


async def test_a_body_may_take_as_long_as_its_call_allows(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(POST[:-2])
        await trio.sleep(3 * HEAD_TIMEOUT)
        await stream.send_all(POST[-2:])
        await read(stream, b"/readhello")
        await stream.send_eof()


async def test_a_short_answer_is_one_write(autojump_clock: MockClock) -> None:
    writes = 0

    def pair():
        ours, theirs = memory_stream_pair()
        pump = theirs.send_stream.send_all_hook

        async def count() -> None:
            nonlocal writes
            writes += 1
            await pump()

        theirs.send_stream.send_all_hook = count
        return ours, theirs

    async with connected(pair) as stream:
        await stream.send_all(GET)
        await read(stream, b"\r\n\r\n/")
        await stream.send_eof()
    assert writes == 1


async def test_a_body_that_is_cut_off_is_told(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(POST[:-2])
        await stream.send_eof()
        answer = await read(stream)
        assert statuses(answer) in ([200], [400])
        assert trio.current_time() == 0


async def test_a_body_that_is_not_read_blocks_nobody(autojump_clock: MockClock) -> None:
    size = 10 * connection.LINGER_BYTES
    async with connected() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(20):
            await stream.send_all(b"x" * 65536)
        assert (await read(stream)).endswith(b"\r\n\r\n/")
    assert trio.current_time() == pytest.approx(LINGER)


async def test_a_body_that_goes_on_and_on_is_cut(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await wait_all_tasks_blocked()
                sent += 65536
        assert connection.LINGER_BYTES <= sent < 2 * connection.LINGER_BYTES
        assert (await read(stream)).endswith(b"\r\n\r\n/")


async def test_a_client_that_does_not_read_is_cut(autojump_clock: MockClock) -> None:
    async with connected(lockstep_stream_pair) as stream:
        await stream.send_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(WRITE_TIMEOUT + 1)
        await read(stream)
        assert trio.current_time() == pytest.approx(WRITE_TIMEOUT + 1)


async def test_a_client_that_is_gone_ends_its_call(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Connection(theirs, app, hypercorn_config()).run)
            # What is sent ahead keeps the connection from being read, so that only a write can tell.
            await ours.send_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
            await read(ours, b"endless\r\n")
            await ours.aclose()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 17_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 70_000, 431),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
            400,
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx", 100),
        (b"GET /fail HTTP/1.1\r\nhost: x\r\n\r\n", 500),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            403,
        ),
    ],
)
async def test_odd_bytes_are_answered(autojump_clock: MockClock, caplog, data: bytes, status: int) -> None:
    async with connected() as stream:
        await stream.send_all(data)
        await stream.send_eof()
        assert statuses(await read(stream))[:1] == [status]
    assert trio.current_time() <= LINGER


KEYED = "host: x\r\nauthorization: Bearer key\r\n"


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/healthz", "host: x\r\n", 200),
        ("/v1/stats", KEYED, 200),
        ("/v1/stats", "host: x\r\n", 401),
        ("/v1/users/nobody", KEYED, 404),
        ("/nowhere", KEYED, 404),
        ("/v1/events", KEYED, 405),
        ("/v1/users/%ff", KEYED, 422),
        ("/v1/stats", "", 400),
        ("/v1/stats", KEYED + "no header\r\n", 400),
        ("/v1/stats", KEYED + f"x: {'y' * 17_000}\r\n", 431),
    ],
)
async def test_head_is_answered_as_get_without_the_body(
    autojump_clock: MockClock, target: str, headers: str, status: int
) -> None:
    answers = []
    async with open_hub() as hub:
        for method in ("GET", "HEAD"):
            async with connected(app=create_app(hub, api_key="key")) as stream:
                await stream.send_all(f"{method} {target} HTTP/1.1\r\n{headers}\r\n".encode())
                await stream.send_eof()
                head, _, body = (await read(stream)).partition(b"\r\n\r\n")
            assert statuses(head) == [status]
            answers.append((sorted(name.partition(b":")[0] for name in head.split(b"\r\n")), body))
    (got, _), (told, nothing) = answers
    assert got == told
    assert nothing == b""


async def test_cancelling_does_not_wait_for_the_peer(autojump_clock: MockClock) -> None:
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(theirs, app, hypercorn_config()).run)
        await ours.send_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0
