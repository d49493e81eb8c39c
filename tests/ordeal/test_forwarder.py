"""What stands between nodes, clients and Redis in scripts/chaos --nodes: it forwards, chooses, cuts and stalls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from ordeal.forwarder import Address, Forwarder


@asynccontextmanager
async def echoing(mark: bytes = b"") -> AsyncIterator[Address]:
    """A server that gives back what it is sent, marked, and ends when its peer does."""

    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                async for piece in stream:
                    await stream.send_all(mark + piece)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, listeners)
        yield listeners[0].socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


async def said(address: Address, word: bytes) -> bytes:
    """All that comes back, until the other end ends it, for a word that is followed by the end."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(word)
        await stream.send_eof()
        return b"".join([piece async for piece in stream])


async def test_both_directions_to_their_ends(nursery: trio.Nursery) -> None:
    async with echoing() as target:
        forwarder = Forwarder(lambda: [target])
        address = await nursery.start(forwarder.serve, "127.0.0.1")
        word = b"x" * 1_000_000
        with trio.fail_after(20):
            assert await said(address, word) == word
        assert forwarder.carried == 1
        nursery.cancel_scope.cancel()


async def test_a_target_that_is_not_there_is_passed_over(nursery: trio.Nursery) -> None:
    async with echoing(b"second: ") as target:
        (gone,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nobody = gone.socket.getsockname()[:2]
        await gone.aclose()
        address = await nursery.start(Forwarder(lambda: [nobody, target]).serve, "127.0.0.1")
        with trio.fail_after(20):
            assert await said(address, b"word") == b"second: word"
        address = await nursery.start(Forwarder(lambda: [nobody]).serve, "127.0.0.1")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            await said(address, b"word")
        nursery.cancel_scope.cancel()


async def test_what_is_cut_is_reset_and_then_as_before(nursery: trio.Nursery) -> None:
    async with echoing() as target:
        forwarder = Forwarder(lambda: [target])
        address = await nursery.start(forwarder.serve, "127.0.0.1")
        with trio.fail_after(20):
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"word")
                assert await stream.receive_some() == b"word"
                forwarder.cut(0.05)
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await said(address, b"word")
            await trio.sleep(0.05)
            assert await said(address, b"word") == b"word"
        nursery.cancel_scope.cancel()


async def test_what_is_stalled_comes_later(nursery: trio.Nursery) -> None:
    async with echoing() as target:
        forwarder = Forwarder(lambda: [target])
        address = await nursery.start(forwarder.serve, "127.0.0.1")
        with trio.fail_after(20):
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"word")
                assert await stream.receive_some() == b"word"
                forwarder.stall(0.1)
                began = trio.current_time()
                await stream.send_all(b"more")
                assert await stream.receive_some() == b"more"
                assert trio.current_time() - began >= 0.1
        nursery.cancel_scope.cancel()
