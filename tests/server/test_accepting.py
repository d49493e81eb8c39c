"""Accepting: a few at once, those who are to be cut before all else, and errors are told where nobody was accepted."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from trio_ws.server.accepting import CUT_AT_ONCE, LET_IN_AT_ONCE, PAUSE, Acceptor, Judgement

from .memory import MemoryListener


def everybody(remote: str) -> Judgement:
    return Judgement.LET_IN


def nobody(remote: str) -> Judgement:
    return Judgement.CUT


@contextmanager
def dialled(listener: trio.SocketListener, n: int) -> Iterator[list[socket.socket]]:
    """`n` clients that wait to be accepted."""
    clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(n)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def is_reset(client: socket.socket) -> bool:
    client.settimeout(5)
    try:
        return bool(client.recv(1)) and False
    except ConnectionResetError:
        return True


async def test_as_many_as_may_be_are_accepted_at_once() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=100)
    address = listener.socket.getsockname()
    with dialled(listener, LET_IN_AT_ONCE + 2) as clients, Acceptor(listener, everybody) as acceptor:
        first = await acceptor.accept()
        second = await acceptor.accept()
        assert (len(first), len(second)) == (LET_IN_AT_ONCE, 2)
        names = set()
        for stream, remote, judgement in first + second:
            assert (remote, judgement) == ("127.0.0.1", Judgement.LET_IN)
            assert isinstance(stream, trio.SocketStream)
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            names.add(stream.socket.getpeername())
            await stream.aclose()
        assert names == {client.getsockname() for client in clients}
        with trio.move_on_after(0.01) as none:
            await acceptor.accept()
        assert none.cancelled_caught
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):  # no descriptor of it is left open
        socket.create_connection(address)


async def test_who_is_cut_is_reset_and_costs_nobody_else_a_turn() -> None:
    judged: list[str] = []

    def every_third(remote: str) -> Judgement:
        judged.append(remote)
        return (Judgement.LET_IN, Judgement.CUT, Judgement.REFUSE)[len(judged) % 3]

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with dialled(listener, 6) as clients, Acceptor(listener, every_third) as acceptor:
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\n")
        accepted = await acceptor.accept()
        assert judged == ["127.0.0.1"] * 6
        assert [one.judgement for one in accepted] == [Judgement.REFUSE, Judgement.LET_IN] * 2
        assert is_reset(clients[0])
        assert is_reset(clients[3])
        for stream, _, _ in accepted:
            await stream.aclose()
    await listener.aclose()


@pytest.mark.parametrize("pauses", [True, False])
async def test_a_flood_is_cut_in_one_go(pauses: bool) -> None:
    """After some were cut it waits for more; where there are more already, it does not."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=CUT_AT_ONCE + 5)
    slept: list[float] = []
    sleep: Callable[..., object] = trio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)  # type: ignore[misc]

    with pytest.MonkeyPatch.context() as patch, Acceptor(listener, nobody) as acceptor:
        patch.setattr(trio, "sleep", noted)
        with dialled(listener, 3 if pauses else CUT_AT_ONCE + 3) as clients:
            assert await acceptor.accept() == []
            assert is_reset(clients[0])
            with dialled(listener, 1):
                assert await acceptor.accept() == []
                assert slept == ([PAUSE] if pauses else [])
                assert is_reset(clients[-1])
    await listener.aclose()


async def test_out_of_descriptors_in_the_middle() -> None:
    """Who was accepted before is served; that there is no room is told the next time."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with dialled(listener, 3), Acceptor(listener, everybody) as acceptor:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
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
        for stream, _, _ in accepted:
            await stream.aclose()
    await listener.aclose()


async def test_any_listener_will_do() -> None:
    listener = MemoryListener()
    with Acceptor(listener, everybody) as acceptor:
        await listener.connect()
        await listener.connect()
        assert [one.remote for one in await acceptor.accept()] == ["memory"]
        assert len(await acceptor.accept()) == 1
    with Acceptor(listener, nobody) as acceptor:
        client = await listener.connect()
        assert await acceptor.accept() == []
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


async def test_a_client_that_has_gone_already() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = socket.create_connection(listener.socket.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with Acceptor(listener, everybody) as acceptor:
        ((stream, remote, _),) = await acceptor.accept()
        assert remote == "127.0.0.1"
        await stream.aclose()
    await listener.aclose()
