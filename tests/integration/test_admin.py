"""The admin listener on real sockets: it starts, it survives what comes in, it ends and leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from trio_ws.admin import connection, serve_admin, server
from trio_ws.hub import Hub, open_hub

pytestmark = pytest.mark.integration


@asynccontextmanager
async def admin(**options: Any) -> AsyncIterator[tuple[Hub, tuple[str, int]]]:
    """A hub and its admin API on a free port of 127.0.0.1; both end with the block."""
    async with open_hub() as hub, trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_admin, hub, port=0, **options))
        yield hub, address
        nursery.cancel_scope.cancel()


def open_client(address: tuple[str, int], **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False, **options)


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    while piece := await stream.receive_some(65536):
        data += piece
    return data


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_an_event_is_published() -> None:
    async with admin() as (hub, address), open_client(address) as client:
        assert address[1] > 0
        response = await client.post("/v1/users/a%2Fb/events", json={"type": "note", "payload": {"n": 1}})
        assert response.status_code == 202
        assert "server" not in response.headers
        with hub.subscribe("a/b") as events:
            [event] = await events.receive()
        assert event.payload == {"n": 1}


async def test_a_key_is_asked_for() -> None:
    async with admin(api_key="k") as (_, address), open_client(address) as client:
        assert (await client.get("/v1/stats")).status_code == 401
        # A body that was not looked at does not stand in the way of the answer.
        refused = await client.post("/v1/events", content=b"x" * 1_000_000)
        assert refused.status_code == 401
        passed = await client.get("/v1/stats", headers={"authorization": "Bearer k"})
        assert passed.status_code == 200


async def test_a_port_in_use_is_an_error_before_it_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with open_hub() as hub, trio.open_nursery() as nursery:
            with pytest.raises(OSError) as caught:
                await nursery.start(partial(serve_admin, hub, port=port))
            assert caught.value.errno == errno.EADDRINUSE


async def test_bytes_of_all_kinds_end_only_their_own_connection() -> None:
    hostile = [
        b"\xff" * 1000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-protocol: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-extensions: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: \xff\xfe\r\norigin: \xff\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 100,
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: \xff\r\nconnection: upgrade\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ]
    async with admin() as (_, address), open_client(address) as client:
        for data in hostile * 3:
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                try:
                    await stream.send_all(data)
                    await stream.send_eof()
                    with trio.fail_after(5):
                        await read_all(stream)
                except trio.BrokenResourceError:
                    pass  # it was reset, which is an answer too
        for data in (b"", b"GET", b"GET / HTTP/1.1\r\n\r\n"):
            reset = await trio.open_tcp_stream(*address)
            await reset.send_all(data)
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            reset.socket.close()
        assert (await client.get("/healthz")).status_code == 200


async def test_slow_and_silent_clients_are_dropped(monkeypatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.2)
    async with admin() as (_, address):
        for data in (b"", b"GET / HTTP/1.1\r\n"):
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(data)
                with trio.fail_after(5):
                    assert (b" 400 " in await read_all(stream)) == bool(data)


async def test_a_slow_body_is_answered(monkeypatch) -> None:
    monkeypatch.setattr("trio_ws.admin.requests.BODY_TIMEOUT", 0.2)
    async with admin() as (hub, address), await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"POST /v1/users/ada/events HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        with trio.fail_after(5):
            answer = await stream.receive_some(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert hub.statistics().events_accepted == 0


async def test_a_batch_is_answered_before_it_ends() -> None:
    async with admin() as (_, address), await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        line = b'{"user":"ada","type":"note"}\n'
        for number in (1, 2):
            await stream.send_all(b"%x\r\n%s\r\n" % (len(line), line))
            with trio.fail_after(5):
                answer = b""
                while b'"seq":%d' % number not in answer:
                    answer += await stream.receive_some(65536)
        await stream.send_all(b"0\r\n\r\n")
        with trio.fail_after(5):
            while not answer.endswith(b"0\r\n\r\n"):
                answer += await stream.receive_some(65536)


async def test_a_client_that_reads_last_gets_all_answers() -> None:
    lines = b"".join(b'{"user":"u%d","type":"note"}\n' % (n % 20) for n in range(20_000))
    async with admin() as (hub, address), open_client(address, timeout=60) as client:
        response = await client.post("/v1/events", content=lines)
        answers = [json.loads(line) for line in response.content.splitlines()]
        assert len(answers) == 20_000
        assert answers[-1]["seq"] == 1000
        assert hub.statistics().events_accepted == 20_000


async def test_it_answers_while_the_hub_drains() -> None:
    async with admin() as (hub, address), open_client(address) as client:
        await hub.drain()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/v1/users/ada/events", json={"type": "note"})).status_code == 503


async def test_cancelled_it_ends_at_once_and_leaves_nothing() -> None:
    async with admin() as (_, address), open_client(address) as client:
        await client.get("/healthz")
    before = open_fds()
    with trio.fail_after(5):
        async with admin() as (_, address), trio.open_nursery() as nursery:
            stuck = [await trio.open_tcp_stream(*address) for _ in range(20)]
            for stream in stuck:
                await stream.send_all(
                    b"POST /v1/users/ada/events?wait=confirmed&timeout=60 HTTP/1.1\r\nhost: x\r\n"
                    b'content-length: 15\r\n\r\n{"type":"note"}'
                )
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b" 200 " in await stream.receive_some(65536)
            nursery.cancel_scope.cancel()
    for stream in stuck:
        try:
            assert await read_all(stream) == b""
        except trio.BrokenResourceError:
            pass
        await stream.aclose()
    assert open_fds() == before


async def test_connections_are_limited(monkeypatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with admin() as (_, address):
        get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        kept = [await trio.open_tcp_stream(*address) for _ in range(2)]
        for stream in kept:
            await stream.send_all(get)
            assert b" 200 " in await stream.receive_some(65536)
        async with await trio.open_tcp_stream(*address) as stream:
            with trio.fail_after(5):
                assert await read_all(stream) == b""
        await kept[0].aclose()
        with trio.fail_after(5):
            while True:
                async with await trio.open_tcp_stream(*address) as stream:
                    try:
                        await stream.send_all(get)
                        if b" 200 " in await stream.receive_some(65536):
                            break
                    except trio.BrokenResourceError:
                        pass
        await kept[1].aclose()
