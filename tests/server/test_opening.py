"""A server, held to the table of the opening handshake: each row is a connection of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

import trio_ws

from .memory import serving
from .opening import ROWS, Row, ask
from .raw import TEXT, Peer, frame


async def converse(stream: trio.abc.Stream, row: Row) -> None:
    """Send the row's request, and compare the answer, to its last byte."""
    peer = Peer(stream)
    await peer.send(row.sent)
    status, *lines = (await peer.head()).split(b"\r\n")
    assert status.startswith(b"HTTP/1.1 %d " % row.status), status
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.decode("ascii").partition(": ")
        assert colon, line
        assert name.strip() == name, line
        headers.setdefault(name.lower(), []).append(value)
    for name, value in row.headers.items():
        assert headers.get(name.lower(), []) == ([] if value is None else [value]), name
    if row.status != 101:
        body = await peer.rest()  # it ends, and nothing comes behind it
        if row.sent.startswith(b"HEAD "):
            assert body == b""
            assert int(headers["content-length"][0]) > 0
        else:
            assert [str(len(body))] == headers["content-length"]
            assert body.endswith(b"\n")
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_in_memory(row: Row, autojump_clock: Any) -> None:
    async with serving() as server:
        await converse(await server.listener.connect(), row)


@pytest.mark.integration
async def test_on_a_socket() -> None:
    async with trio_ws.open_hub() as hub, trio.open_nursery() as nursery:
        ((host, port),) = await nursery.start(partial(trio_ws.serve, hub, port=0))
        for row in ROWS:
            with trio.fail_after(20):
                await converse(await trio.open_tcp_stream(host, port), row)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_however_the_request_comes_what_follows_it_is_taken(size: int, autojump_clock: Any) -> None:
    """4.2.2: the server may be sent data as soon as the client has sent its request, and must not lose any."""
    request = ask("GET /ws HTTP/1.1", Sec_WebSocket_Protocol="trio-ws.v1")
    sent = request + frame(TEXT, b'{"t":"hello","user":"ada"}') + frame(TEXT, b'{"t":"ping"}')
    async with serving() as server:
        peer = Peer(await server.listener.connect())
        for at in range(0, len(sent), size):
            await peer.send(sent[at : at + size])
        assert b" 101 " in await peer.head()
        said = ""
        while '"pong"' not in said:
            said += await peer.text()
        assert said.index('"welcome"') < said.index('"pong"')
        await trio.aclose_forcefully(peer.stream)


def test_the_table_has_no_row_twice() -> None:
    assert len({row.sent for row in ROWS}) == len({row.rule for row in ROWS}) == len(ROWS)
