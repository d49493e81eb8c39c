"""What a client sends: the request's head, then all the rest; read by a task, and by the poller."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws.server.inflow import Inflow
from trio_ws.server.poller import READ_BYTES, open_poller
from trio_ws.server.stream import cut
from trio_ws.server.tasks import Tasks
from trio_ws.server.upgrade import MAX_HEAD_BYTES, Refusal

HEAD = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def inflow(reads: str) -> AsyncIterator[tuple[Inflow, trio.abc.Stream, trio.Nursery]]:
    """An inflow, the client's end of its stream, and a nursery."""
    if reads == "task of a memory stream":
        ours, theirs = trio.testing.memory_stream_pair()
    else:
        ours, theirs = (trio.SocketStream(end) for end in trio.socket.socketpair())
    async with open_poller() as poller, trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        subject = Inflow(ours, tasks, poller if reads == "poller" else None)
        try:
            yield subject, theirs, nursery
        finally:
            subject.end()
            assert poller is not None
            assert len(poller) == 0
            await cut(ours)
            await cut(theirs)
            tasks.cancel()
    assert len(tasks) == 0


@pytest.fixture(params=["task of a memory stream", "task of a socket", "poller"])
def reads(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def settle() -> None:
    """Let all that can happen by itself happen."""
    await trio.testing.wait_all_tasks_blocked(0.002)


class TestTheHead:
    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    async def test_in_pieces(self, reads: str, size: int) -> None:
        async with inflow(reads) as (subject, client, nursery):

            async def send() -> None:
                for at in range(0, len(HEAD), size):
                    await client.send_all(HEAD[at : at + size])
                    await settle()

            nursery.start_soon(send)
            assert await subject.receive_head() == HEAD

    async def test_what_comes_with_it_and_after_it_is_not_lost(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            taken: list[bytes] = []
            await client.send_all(HEAD + b"with it, ")
            assert await subject.receive_head() == HEAD
            await client.send_all(b"and after it")
            await settle()
            subject.open(taken.append)
            await client.send_all(b".")
            await settle()
            assert b"".join(taken) == b"with it, and after it."

    @pytest.mark.parametrize("begun", [b"", b"GET /", HEAD[:-1]])
    async def test_the_end_comes_first(self, reads: str, begun: bytes) -> None:
        async with inflow(reads) as (subject, client, _):
            if begun:
                await client.send_all(begun)
            await client.aclose()
            with pytest.raises(trio.BrokenResourceError):
                await subject.receive_head()

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"\x16\x03\x01\x02\x00", 400),
            (b"\r\n", 400),
            (b"GET / HTTP/1.1\nHost: a\n\n", 400),
            (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD_BYTES - 19) + b"\r\n\r\n", 431),
        ],
    )
    async def test_what_is_no_head_is_not_waited_for(self, reads: str, data: bytes, status: int) -> None:
        async with inflow(reads) as (subject, client, _):
            await client.send_all(data)
            with pytest.raises(Refusal) as caught:
                await subject.receive_head()
            assert caught.value.status == status

    async def test_cancelling_loses_nothing(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            await client.send_all(HEAD[:10])
            with trio.move_on_after(0.01):
                await subject.receive_head()
            await client.send_all(HEAD[10:])
            assert await subject.receive_head() == HEAD

    async def test_what_nobody_takes_is_bounded(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, nursery):
            nursery.start_soon(client.send_all, b"x" * 1_000_000)
            await settle()
            await settle()
            assert len(subject._data) <= MAX_HEAD_BYTES + 65536
            assert subject._paused
            nursery.cancel_scope.cancel()


class TestTheRest:
    async def test_it_is_pushed_until_the_end(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            taken: list[bytes] = []
            subject.open(taken.append)
            for piece in (b"one", b"two"):
                await client.send_all(piece)
                await settle()
            await client.aclose()
            await settle()
            assert taken == [b"one", b"two", b""]
            assert subject.ended
            subject.end()
            assert taken == [b"one", b"two", b""]

    async def test_an_end_that_came_before_is_told_at_once(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            taken: list[bytes] = []
            await client.send_all(HEAD + b"x")
            await client.aclose()
            assert await subject.receive_head() == HEAD
            await settle()
            subject.open(taken.append)
            assert taken == [b"x", b""]

    async def test_no_more_is_read_than_is_wanted(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, nursery):
            taken: list[bytes] = []

            def take(data: bytes) -> None:
                taken.append(data)
                subject.pause()

            subject.open(take)
            nursery.start_soon(client.send_all, b"x" * 10 * READ_BYTES)
            for count in range(1, 5):
                await settle()
                assert len(taken) == count
                subject.resume()
                subject.resume()
            assert max(map(len, taken)) <= READ_BYTES
            nursery.cancel_scope.cancel()

    async def test_what_was_held_back_comes_in_order(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            taken: list[bytes] = []
            subject.open(taken.append)
            await settle()
            subject.pause()
            await client.send_all(b"1")
            await settle()
            await client.send_all(b"2")
            await client.aclose()
            subject.resume()
            await settle()
            assert b"".join(taken) == b"12"
            assert taken[-1] == b""

    async def test_after_the_end_nothing_comes(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, _):
            taken: list[bytes] = []
            subject.open(taken.append)
            subject.end()
            await client.send_all(b"x")
            await settle()
            assert b"".join(taken) == b""
            subject.resume()
            await settle()
            assert b"".join(taken) == b""

    async def test_life_is_noted(self, reads: str, autojump_clock: trio.testing.MockClock) -> None:
        async with inflow(reads) as (subject, client, _):
            subject.open(lambda _: None)
            begun = trio.current_time()
            assert subject.last_received == begun
            for after in (3, 6):
                await trio.sleep(3)
                await client.send_all(b"an ack")
                await trio.testing.wait_all_tasks_blocked()
                assert subject.last_received == begun + after


class TestDiscarding:
    async def test_until_the_peer_has_ended_it(self, reads: str) -> None:
        async with inflow(reads) as (subject, client, nursery):
            taken: list[bytes] = []
            subject.open(taken.append)
            subject.pause()

            async def talk() -> None:
                await client.send_all(b"x" * 1_000_000)
                await client.aclose()

            nursery.start_soon(talk)
            await subject.discard()
            assert subject.ended
            assert len(b"".join(taken)) <= READ_BYTES
            await subject.discard()

    async def test_it_can_be_given_up(self, reads: str, autojump_clock: trio.testing.MockClock) -> None:
        async with inflow(reads) as (subject, _, _):
            subject.open(lambda _: None)
            with trio.move_on_after(1) as scope:
                await subject.discard()
            assert scope.cancelled_caught


@pytest.mark.skipif("sys.platform == 'win32'")
async def test_a_reset_is_an_end() -> None:
    for poller_reads in (True, False):
        async with open_poller() as poller, trio.open_nursery() as nursery:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            ours = await listener.accept()
            tasks, taken = Tasks(nursery), trio.Event()
            subject = Inflow(ours, tasks, poller if poller_reads else None)
            subject.open(lambda data, taken=taken: None if data else taken.set())
            await client.send_all(b"unread")
            client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await trio.aclose_forcefully(client)
            with trio.fail_after(5):
                await taken.wait()
            await ours.aclose()
            await listener.aclose()


async def test_who_takes_is_let_go_of_at_the_end(reads: str) -> None:
    """A connection that has ended must not wait for the garbage collector, whose pauses everybody feels."""

    class Owner:
        def __init__(self, subject: Inflow) -> None:
            self.subject = subject
            self.taken: list[bytes] = []

        def take(self, data: bytes) -> None:
            self.taken.append(data)

    async with inflow(reads) as (subject, client, _):
        owner = Owner(subject)
        subject.open(owner.take)
        await client.send_all(b"x")
        await settle()
        taken, alive = owner.taken, weakref.ref(owner)
        del owner
        assert alive() is not None
        subject.end()
        await settle()
        assert taken == [b"x", b""]
        assert alive() is None
