"""Accepting: all that wait at once, within bounds, and errors are told where nobody could be accepted."""

from __future__ import annotations

import errno
import os
import resource
import socket

import pytest
import trio

from trio_ws.server.accepting import AT_ONCE, Acceptor

from .memory import MemoryListener


async def test_all_that_wait_are_accepted_at_once() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=100)
    address = listener.socket.getsockname()
    clients = [socket.create_connection(address) for _ in range(AT_ONCE + 5)]
    with Acceptor(listener) as acceptor:
        first = await acceptor.accept()
        second = await acceptor.accept()
        assert (len(first), len(second)) == (AT_ONCE, 5)
        names = set()
        for stream, remote in first + second:
            assert remote == "127.0.0.1"
            assert isinstance(stream, trio.SocketStream)
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            names.add(stream.socket.getpeername())
            await stream.aclose()
        assert names == {client.getsockname() for client in clients}
        with trio.move_on_after(0.01) as none:
            await acceptor.accept()
        assert none.cancelled_caught
    await listener.aclose()
    for client in clients:
        client.close()
    with pytest.raises(ConnectionRefusedError):  # no descriptor of it is left open
        socket.create_connection(address)


async def test_out_of_descriptors_in_the_middle() -> None:
    """Who was accepted before is served; that there is no room is told the next time."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Acceptor(listener) as acceptor:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))  # there is room for one
        try:
            accepted = await acceptor.accept()
            with pytest.raises(OSError) as caught:
                await acceptor.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(accepted) == 1
        assert caught.value.errno == errno.EMFILE
        accepted += await acceptor.accept()
        assert len(accepted) == 3
    for stream, _ in accepted:
        await stream.aclose()
    await listener.aclose()
    for client in clients:
        client.close()


async def test_any_listener_will_do() -> None:
    listener = MemoryListener()
    with Acceptor(listener) as acceptor:
        await listener.connect()
        await listener.connect()
        assert [remote for _, remote in await acceptor.accept()] == ["memory"]
        assert len(await acceptor.accept()) == 1


async def test_a_client_that_has_gone_already() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = socket.create_connection(listener.socket.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with Acceptor(listener) as acceptor:
        ((stream, remote),) = await acceptor.accept()
        assert remote == "gone"
        await stream.aclose()
    await listener.aclose()
