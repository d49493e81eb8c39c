"""The network that is broken on purpose, over real sockets on the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_ws.faults import FaultyNetwork

pytestmark = pytest.mark.integration


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def open_network() -> AsyncIterator[tuple[FaultyNetwork, int]]:
    """A faulty network before a server that sends back what it is sent."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        port = listeners[0].socket.getsockname()[1]
        network = FaultyNetwork("127.0.0.1", port)
        [(_, faulty), *_] = await nursery.start(network.serve, "127.0.0.1")
        yield network, faulty
        nursery.cancel_scope.cancel()


async def connect(port: int, link: str) -> trio.SocketStream:
    """A connection of `link` through which its request has come back."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request = f"GET /ws?link={link} HTTP/1.1\r\n\r\n".encode()
    try:
        await stream.send_all(request)
        await expect(stream, request)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def expect(stream: trio.SocketStream, data: bytes) -> None:
    got = b""
    with trio.fail_after(5):
        while len(got) < len(data):
            piece = await stream.receive_some()
            assert piece, "it was closed"
            got += piece
    assert got == data


async def test_it_forwards_both_ways() -> None:
    async with open_network() as (_, port):
        stream = await connect(port, "a")
        big = bytes(range(256)) * 4000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, big)
            await expect(stream, big)
        await stream.aclose()


async def test_a_cut_resets_one_link_and_no_other() -> None:
    async with open_network() as (network, port):
        ours, other = await connect(port, "a"), await connect(port, "b")
        assert network.cut("a") == 1
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        await other.send_all(b"still here")
        await expect(other, b"still here")
        again = await connect(port, "a")
        for stream in (ours, other, again):
            await trio.aclose_forcefully(stream)


async def test_a_link_that_is_off_refuses() -> None:
    async with open_network() as (network, port):
        network.cut("a", 60)
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            await connect(port, "a")
        network.cut("a", 0)
        await trio.aclose_forcefully(await connect(port, "a"))


async def test_silence_holds_everything_back_and_loses_nothing() -> None:
    async with open_network() as (network, port):
        stream = await connect(port, "a")
        began = trio.current_time()
        assert network.silence("a", 0.3) == 1
        await stream.send_all(b"patience")
        await expect(stream, b"patience")
        assert trio.current_time() - began >= 0.3
        network.silence("a", 60)
        network.cut("a")  # a cut ends a silence
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await trio.aclose_forcefully(stream)


async def test_half_open_loses_what_is_sent_on_what_is_open_and_nothing_else() -> None:
    async with open_network() as (network, port):
        lost = await connect(port, "a")
        assert network.half_open("a") == 1
        await lost.send_all(b"into the void")
        again = await connect(port, "a")
        await again.send_all(b"as it should be")
        await expect(again, b"as it should be")
        with trio.move_on_after(0.2) as patience:
            await lost.receive_some()
        assert patience.cancelled_caught  # no answer, and no word of an end either
        assert network.cut("a") == 2
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await lost.receive_some()
        for stream in (lost, again):
            await trio.aclose_forcefully(stream)


async def test_neither_end_of_what_is_half_open_learns_that_the_other_has_gone() -> None:
    heard_end = trio.Event()

    async def hear(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)
        heard_end.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hear, 0)
        network = FaultyNetwork("127.0.0.1", listeners[0].socket.getsockname()[1])
        [(_, port), *_] = await nursery.start(network.serve, "127.0.0.1")
        stream = await connect(port, "a")
        network.half_open("a")
        await stream.aclose()
        with trio.move_on_after(0.2):
            await heard_end.wait()
        assert not heard_end.is_set()
        nursery.cancel_scope.cancel()


async def test_it_forgets_links_that_have_no_connections() -> None:
    network = FaultyNetwork("127.0.0.1", 1)
    for n in range(3000):
        network.cut(f"link-{n}")
    assert len(network._links) <= 1000
