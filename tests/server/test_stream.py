"""The guarded stream: what is written stays whole and in order, and what gets stuck is cut."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws.server.inflow import Inflow
from trio_ws.server.poller import open_poller
from trio_ws.server.stream import MAX_CONTROL_BACKLOG, GuardedStream
from trio_ws.server.tasks import Tasks

PIECE = 16 * 1024  # what a stream without a socket is given at once


@asynccontextmanager
async def guard(
    raw: trio.abc.Stream, *, write_timeout: float = 5
) -> AsyncIterator[tuple[GuardedStream, Tasks, trio.Nursery]]:
    """A stream that is guarded, and the tasks of its reading and writing."""
    async with open_poller() as poller, trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        yield (
            GuardedStream(raw, tasks, inflow=Inflow(raw, tasks, poller), write_timeout=write_timeout),
            tasks,
            nursery,
        )
        tasks.cancel()
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(raw)


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        assert more, "the stream ended"
        data += more
    return data


@pytest.fixture
async def sockets() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A connected pair of real sockets, with no network between them."""
    ours, theirs = trio.socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    pair = trio.SocketStream(ours), trio.SocketStream(theirs)
    yield pair
    for end in pair:
        await trio.aclose_forcefully(end)


class TestSending:
    async def test_in_order_whoever_sends(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with guard(ours) as (stream, _, _):
            assert stream.send_nowait(b"1") is False
            stream.send_control(b"2")
            assert stream.backlog == 2
            stream.send_nowait(b"3")
            await stream.flush()
            assert stream.backlog == 0
            assert await receive_exactly(theirs, 3) == b"123"

    async def test_a_socket_takes_it_at_once_and_without_a_task(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        async with guard(ours) as (stream, tasks, _):
            assert stream.send_nowait(b"frame") is True
            assert len(tasks) == 0
            assert stream.backlog == 0
            assert os.read(theirs.socket.fileno(), 100) == b"frame"

    async def test_what_a_socket_does_not_take_follows_in_order(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        drained: list[int] = []
        async with guard(ours) as (stream, tasks, _):
            stream.on_drained = lambda: drained.append(stream.backlog)
            frames = [bytes([n]) * 40_000 for n in range(10)]
            handed_over = [stream.send_nowait(frame) for frame in frames]
            assert handed_over[-1] is False
            assert 0 < stream.backlog < 400_000
            assert len(tasks) == 1
            assert await receive_exactly(theirs, 400_000) == b"".join(frames)
            await trio.testing.wait_all_tasks_blocked()
            assert drained == [0]
            assert len(tasks) == 0
            assert stream.send_nowait(b"after") is True
            assert await receive_exactly(theirs, 5) == b"after"

    async def test_nothing_overtakes_a_backlog(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        async with guard(ours) as (stream, _, _):
            sent = 0
            while stream.send_nowait(b"a" * 65536):
                sent += 65536
            received = os.read(theirs.socket.fileno(), 1 << 20)  # now the socket would take more
            assert stream.send_nowait(b"b") is False
            received += await receive_exactly(theirs, sent + 65536 + 1 - len(received))
            assert received.index(b"b") == len(received) - 1

    async def test_on_drained_after_every_backlog(self) -> None:
        ours, _ = trio.testing.memory_stream_pair()
        drained: list[None] = []
        async with guard(ours) as (stream, _, _):
            stream.on_drained = lambda: drained.append(None)
            for n in range(1, 4):
                stream.send_nowait(b"frame")
                await stream.flush()
                await trio.testing.wait_all_tasks_blocked()
                assert len(drained) == n

    async def test_a_cancelled_flush_leaves_the_frame_whole(self) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        frame = os.urandom(3 * PIECE)
        async with guard(ours) as (stream, _, nursery):
            with trio.CancelScope() as scope:

                async def cancel_in_the_middle() -> None:
                    await receive_exactly(theirs, PIECE // 2)
                    scope.cancel()

                nursery.start_soon(cancel_in_the_middle)
                stream.send_nowait(frame)
                await stream.flush()
            assert scope.cancelled_caught
            stream.send_nowait(b"next")
            rest = len(frame) - PIECE // 2
            assert await receive_exactly(theirs, rest + 4) == frame[PIECE // 2 :] + b"next"

    async def test_nothing_after_the_last(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with guard(ours) as (stream, _, _):
            stream.send_control(b"close", last=True)
            with pytest.raises(trio.ClosedResourceError):
                stream.send_nowait(b"frame")
            await stream.flush()
            assert await theirs.receive_some() == b"close"


class TestPoison:
    async def test_no_progress(self, autojump_clock: trio.testing.MockClock) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, _):
            stream.send_nowait(b"x" * 3 * PIECE)
            await receive_exactly(theirs, PIECE)
            start = trio.current_time()
            with pytest.raises(trio.BrokenResourceError, match="write_timeout"):
                await stream.flush()
            assert trio.current_time() - start == pytest.approx(5)
            assert stream.failure == "write_timeout"
            assert stream.backlog == 0
            with pytest.raises(trio.BrokenResourceError):
                stream.send_nowait(b"frame")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

    async def test_slow_progress_is_progress(self, autojump_clock: trio.testing.MockClock) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, _):
            stream.send_nowait(b"x" * 4 * PIECE)
            for _ in range(4):
                await trio.sleep(4)
                await receive_exactly(theirs, PIECE)
            await stream.flush()
            assert stream.failure is None

    async def test_a_stuck_socket(self, sockets: tuple[trio.SocketStream, trio.SocketStream]) -> None:
        ours, _ = sockets
        async with guard(ours, write_timeout=0.05) as (stream, _, _):
            while stream.send_nowait(b"x" * 65536):
                pass
            with pytest.raises(trio.BrokenResourceError, match="write_timeout"):
                await stream.flush()
            assert ours.socket.fileno() == -1

    async def test_the_peer_is_gone(self, sockets: tuple[trio.SocketStream, trio.SocketStream]) -> None:
        ours, theirs = sockets
        await theirs.aclose()
        async with guard(ours) as (stream, _, _):
            with pytest.raises(trio.BrokenResourceError):
                stream.send_nowait(b"frame")
            assert stream.failure == "reset"
            with pytest.raises(trio.BrokenResourceError):
                await stream.flush()

    async def test_the_peer_goes_while_a_backlog_is_written(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        async with guard(ours) as (stream, _, _):
            while stream.send_nowait(b"x" * 65536):
                pass
            await theirs.aclose()
            with pytest.raises(trio.BrokenResourceError):
                await stream.flush()
            assert stream.failure == "reset"

    async def test_a_closed_socket_is_never_written_to(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        """Its number may be another connection's by then."""
        ours, _ = sockets
        async with guard(ours) as (stream, _, _):
            reading, writing = os.pipe()
            number = ours.socket.fileno()
            assert stream.send_nowait(b"frame") is True
            await ours.aclose()
            os.dup2(writing, number)
            try:
                with pytest.raises(trio.BrokenResourceError):
                    stream.send_nowait(b"a secret of somebody else")
                os.close(writing)
                os.close(number)
                assert os.read(reading, 100) == b""
            finally:
                os.close(reading)

    async def test_pongs_that_nobody_takes(self) -> None:
        ours, _ = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, _):
            stream.send_nowait(b"x")
            pong = b"p" * 127
            for _ in range(MAX_CONTROL_BACKLOG // len(pong)):
                stream.send_control(pong)
            assert stream.failure is None
            with pytest.raises(trio.BrokenResourceError):
                stream.send_control(pong)
            assert stream.failure == "control_flood"

    async def test_pongs_that_are_taken_are_no_flood(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with guard(ours) as (stream, _, _):
            for _ in range(20):
                for _ in range(100):
                    stream.send_control(b"p" * 127)
                await stream.flush()
                await trio.testing.wait_all_tasks_blocked()
            assert len(await receive_exactly(theirs, 20 * 100 * 127)) == 254_000

    async def test_pongs_that_are_taken_at_once_are_no_flood(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        async with guard(ours) as (stream, _, _):
            for _ in range(2 * MAX_CONTROL_BACKLOG // 100):
                stream.send_control(b"p" * 100)
                assert os.read(theirs.socket.fileno(), 200) == b"p" * 100

    async def test_a_cancelled_writer(self) -> None:
        ours, _ = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, nursery):
            stream.send_nowait(b"x" * PIECE * 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert stream.failure == "cancelled"
        with pytest.raises(trio.BrokenResourceError):
            stream.send_nowait(b"frame")

    async def test_waiters_are_woken_and_the_first_reason_stays(self) -> None:
        ours, _ = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, nursery):
            stream.send_nowait(b"x")

            async def cut() -> None:
                await trio.testing.wait_all_tasks_blocked()
                stream.poison("aborted")
                stream.poison("other")

            nursery.start_soon(cut)
            with pytest.raises(trio.BrokenResourceError, match="aborted"):
                await stream.flush()
            assert stream.inflow.ended


class TestLastWords:
    async def test_the_peer_hears_them_though_it_still_talks(
        self, sockets: tuple[trio.SocketStream, trio.SocketStream]
    ) -> None:
        ours, theirs = sockets
        async with guard(ours) as (stream, _, nursery):
            heard = []

            async def talk_then_listen() -> None:
                await theirs.send_all(b"x" * 1_000_000)
                heard.append(await receive_exactly(theirs, 10))
                heard.append(await theirs.receive_some())
                await theirs.aclose()

            nursery.start_soon(talk_then_listen)
            await stream.send_last(b"last words", timeout=60)
            assert heard == [b"last words", b""]
            assert ours.socket.fileno() == -1

    @pytest.mark.parametrize("reads", [False, True])
    async def test_a_mute_peer_is_not_waited_for(
        self, reads: bool, autojump_clock: trio.testing.MockClock
    ) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, nursery):
            if reads:
                nursery.start_soon(receive_exactly, theirs, 4)
            start = trio.current_time()
            await stream.send_last(b"last", timeout=1)
            assert trio.current_time() - start == pytest.approx(1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

    async def test_aclose_is_idempotent_and_final(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with guard(ours) as (stream, _, _):
            await stream.aclose()
            await stream.aclose()
            assert stream.failure is None
            assert await theirs.receive_some() == b""
            with pytest.raises(trio.ClosedResourceError):
                stream.send_nowait(b"frame")
            assert stream.inflow.ended

    async def test_aclose_with_a_backlog_cuts(self) -> None:
        ours, _ = trio.testing.lockstep_stream_pair()
        async with guard(ours) as (stream, _, _):
            stream.send_nowait(b"frame")
            await stream.aclose()
            assert stream.failure == "aborted"
            assert stream.backlog == 0
