"""The transport: the handshake, messages both ways, and every way in which it can end.

All of it once over memory streams, where a task reads, and once over sockets, where the poller does.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed
from wsproto.events import Ping

from trio_ws.config import Config
from trio_ws.server.ending import BinaryMessage, Ending, Refused, TransportClosed, unwrap
from trio_ws.server.library import MAX_WAITING
from trio_ws.server.poller import READ_BYTES, open_poller
from trio_ws.server.transport import CLOSE_TIMEOUT, Transport, open_transport

from .raw import BINARY, CLOSE, CONTINUATION, PING, PONG, REQUEST, TEXT, Peer, close_frame, frame, request

CONFIG = Config()
LARGE = "x" * 5000  # too large for the lane


def text_message(text: str) -> bytes:
    """A server's text frame."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x81, len(payload)]) + payload


class ways:
    """What the fixture `reads` has set, for the functions below."""

    reads = "task"
    sockets: ClassVar[list[socket.socket]] = []


@pytest.fixture(autouse=True, params=["task", "poller"])
def reads(request: pytest.FixtureRequest) -> Iterator[str]:
    """What reads in this test."""
    ways.reads = request.param
    yield ways.reads
    for theirs, ours in zip(ways.sockets[::2], ways.sockets[1::2], strict=True):
        theirs.close()
        assert ours.fileno() == -1
    ways.sockets.clear()


def stream_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    """The client's and the server's end."""
    if ways.reads == "task":
        return trio.testing.memory_stream_pair()
    pair = socket.socketpair()
    ways.sockets += pair
    theirs, ours = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in pair)
    return theirs, ours


@asynccontextmanager
async def opened(stream: trio.abc.Stream, *, config: Config, remote: str) -> AsyncIterator[Transport]:
    """`open_transport`, with what reads in this test."""
    if ways.reads == "task":
        async with open_transport(stream, config=config, remote=remote) as transport:
            yield transport
        return
    failure = None
    try:
        async with open_poller() as poller:
            try:
                async with open_transport(stream, config=config, remote=remote, poller=poller) as transport:
                    yield transport
            finally:
                assert poller is not None
                assert len(poller) == 0
    except BaseExceptionGroup as group:
        failure = unwrap(group)
    if failure is not None:
        raise failure


@asynccontextmanager
async def connected(
    config: Config = CONFIG, *, head: bytes = REQUEST, stuck: bool = False
) -> AsyncIterator[tuple[Transport, Peer]]:
    """An accepted transport and its peer. A `stuck` peer's stream holds nothing: what it does not read, waits."""
    theirs, ours = trio.testing.lockstep_stream_pair() if stuck else stream_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, head)
        async with opened(ours, config=config, remote="test") as transport:
            nursery.start_soon(peer.head)
            await transport.accept(None)
            await trio.testing.wait_all_tasks_blocked()
            yield transport, peer


async def ends(transport: Transport) -> TransportClosed:
    """How it ends; nothing must come before."""
    with pytest.raises(TransportClosed) as caught:
        await transport.receive()
    return caught.value


class TestHandshake:
    async def test_accepting(self, autojump_clock: trio.testing.MockClock) -> None:
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(
            request(
                b"Sec-WebSocket-Protocol: other, trio-ws.v1", b"Sec-WebSocket-Extensions: permessage-deflate"
            )
        )
        async with opened(ours, config=CONFIG, remote="192.0.2.1") as transport:
            assert transport.request.subprotocols == ("other", "trio-ws.v1")
            assert transport.remote == "192.0.2.1"
            assert transport.subprotocol is None
            await transport.accept("trio-ws.v1")
            assert transport.subprotocol == "trio-ws.v1"
            lines = (await peer.head()).lower().split(b"\r\n")
            assert lines[0].startswith(b"http/1.1 101 ")
            assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in lines
            assert b"sec-websocket-protocol: trio-ws.v1" in lines
            assert not any(line.startswith(b"sec-websocket-extensions") for line in lines)
            with pytest.raises(RuntimeError):
                await transport.accept("trio-ws.v1")
            with pytest.raises(RuntimeError):
                await transport.refuse(400, "too late")

    async def test_without_a_subprotocol(self, autojump_clock: trio.testing.MockClock) -> None:
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(request(b"Sec-WebSocket-Protocol: other"))
        async with opened(ours, config=CONFIG, remote="test") as transport:
            with pytest.raises(ValueError, match="did not offer"):
                await transport.accept("trio-ws.v1")
            await transport.accept(None)
            assert b"protocol" not in (await peer.head()).lower().replace(b"switching protocols", b"")

    @pytest.mark.parametrize("host", [b"a..b", b"xn--a", b"." * 80, b"a" * 70])
    async def test_hosts_that_break_the_library(
        self, host: bytes, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with connected(head=REQUEST.replace(b"localhost", host)) as (transport, peer):
            await peer.send(frame(TEXT, b"hi"))
            assert await transport.receive() == "hi"

    async def test_frames_may_come_with_the_request(self, autojump_clock: trio.testing.MockClock) -> None:
        theirs, ours = stream_pair()
        await theirs.send_all(REQUEST + frame(TEXT, b"early"))
        async with opened(ours, config=CONFIG, remote="test") as transport:
            await transport.accept(None)
            assert await transport.receive() == "early"

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (REQUEST.replace(b"GET", b"POST"), 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
            (request(b"X: " + b"a" * 17000), 431),
            (request(b"X: \xff"), 400),
        ],
    )
    async def test_no_proper_request(self, head: bytes, status: int) -> None:
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(head)
        await theirs.send_eof()
        with pytest.raises(Refused) as caught:
            async with opened(ours, config=CONFIG, remote="test"):
                pytest.fail("there is nothing to open")
        assert caught.value.status == status
        assert (await peer.head()).startswith(b"HTTP/1.1 %d " % status)
        assert (await peer.rest()).endswith(b".\n")

    async def test_the_end_comes_before_the_request(self) -> None:
        theirs, ours = stream_pair()
        await theirs.send_all(REQUEST[:30])
        await theirs.aclose()
        with pytest.raises(TransportClosed) as caught:
            async with opened(ours, config=CONFIG, remote="test"):
                pytest.fail("there is nothing to open")
        assert caught.value.by == "network"

    async def test_the_end_comes_before_the_answer(self) -> None:
        theirs, ours = stream_pair()
        await theirs.send_all(REQUEST)
        with pytest.raises(TransportClosed) as caught:
            async with opened(ours, config=CONFIG, remote="test") as transport:
                await theirs.aclose()
                await transport.accept(None)
        assert caught.value.by == "network"

    async def test_refusing(self, autojump_clock: trio.testing.MockClock) -> None:
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(REQUEST)
        async with opened(ours, config=CONFIG, remote="test") as transport:
            start = trio.current_time()
            await transport.refuse(403, "Not from there.", [("X-Why", "origin")])
            assert trio.current_time() - start <= CLOSE_TIMEOUT
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert b"X-Why: origin" in head
            assert await peer.rest() == b"Not from there.\n"
            with pytest.raises(TransportClosed, match="403"):
                await transport.accept(None)

    async def test_a_silent_client_is_left_when_the_caller_says(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        theirs, ours = stream_pair()
        start = trio.current_time()
        with trio.move_on_after(5):
            async with opened(ours, config=CONFIG, remote="test"):
                pytest.fail("there is nothing to open")
        assert trio.current_time() - start == 5
        assert await theirs.receive_some() == b""


class TestMessages:
    async def test_in_order_by_lane_and_by_receive(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            log: list[str] = []
            await peer.send(frame(TEXT, b"hello"))
            assert await transport.receive() == "hello"
            transport.open_lane(lambda payload: log.append(payload.decode()))

            async def handle() -> None:
                while True:
                    message = await transport.receive()
                    await trio.testing.wait_all_tasks_blocked()  # all that came behind it is there
                    log.append(message[:1])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle)
                await peer.send(frame(TEXT, b"1"), frame(TEXT, b"2"))
                await peer.send(frame(TEXT, LARGE.encode()), frame(TEXT, b"4"), frame(TEXT, b"5"))
                await peer.send(frame(TEXT, b"6", fin=False), frame(PING), frame(CONTINUATION))
                await trio.testing.wait_all_tasks_blocked(0.01)
                await peer.send(frame(TEXT, b"7"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            assert log == ["1", "2", "x", "4", "5", "6", "7"]
            assert transport._messages._scanner.passed == 4  # hello took the lane too, and so did 1 and 2

    async def test_cancelling_receive_loses_nothing(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            with trio.CancelScope() as scope:
                scope.cancel()
                await transport.receive()
            await peer.send(frame(TEXT, b"kept"))
            assert await transport.receive() == "kept"

    async def test_binary(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            await peer.send(frame(BINARY, b"\x00"), frame(TEXT, b"text"))
            with pytest.raises(BinaryMessage):
                await transport.receive()
            assert await transport.receive() == "text"

    async def test_tiny_segments_do_not_pile_up(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            text = "ä" * 1000
            for byte in frame(TEXT, text.encode()):
                await peer.send(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
                library = transport._messages._library
                assert library is None or len(library._message_parts) <= 65
            assert library is not None
            assert await transport.receive() == text

    async def test_what_nobody_receives_is_not_read(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(peer.stream.send_all, frame(TEXT, LARGE.encode()))
                await trio.testing.wait_all_tasks_blocked()
                if len(nursery.child_tasks) > 0:
                    break
            inflow, passed = transport._guarded.inflow, transport._messages._passed
            assert inflow._paused
            assert passed is not None
            assert len(passed._data) <= MAX_WAITING + READ_BYTES
            nursery.cancel_scope.cancel()

    async def test_sending(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            transport.send_nowait(text_message("one") + text_message("two"))
            assert await peer.text() == "one"
            assert await peer.text() == "two"

    async def test_nothing_before_the_handshake(self) -> None:
        theirs, ours = stream_pair()
        await theirs.send_all(REQUEST)
        async with opened(ours, config=CONFIG, remote="test") as transport:
            with pytest.raises(RuntimeError):
                transport.send_nowait(b"")
            with pytest.raises(RuntimeError):
                await transport.receive()

    async def test_backlog(self) -> None:
        async with connected(stuck=True) as (transport, peer):
            drained: list[int] = []
            transport.on_drained = lambda: drained.append(transport.backlog)
            assert transport.send_nowait(text_message("one")) is False
            assert transport.backlog == 5
            assert await peer.text() == "one"
            await trio.testing.wait_all_tasks_blocked()
            assert drained == [0]
            transport.abort()

    async def test_an_idle_connection_has_no_task_but_the_one_that_reads(
        self, reads: str, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with connected() as (transport, peer):
            transport.open_lane(lambda _: None)
            await peer.send(frame(TEXT, b"an ack"))
            await trio.testing.wait_all_tasks_blocked()
            assert len(transport._messages._tasks) == (1 if reads == "task" else 0)
            assert transport._messages._library is None


class TestPings:
    async def test_answered(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (_, peer):
            await peer.send(frame(PING, b"payload"))
            assert await peer.frame() == (PONG, b"payload")

    async def test_a_pong_waits_for_nobody(self) -> None:
        """What the client sends is heard, though it takes nothing."""
        async with connected(stuck=True) as (transport, peer):
            heard: list[bytes] = []
            transport.open_lane(heard.append)
            transport.send_nowait(text_message("stuck"))
            await peer.send(frame(PING), frame(TEXT, b"ack"), frame(PING))
            await peer.send(frame(TEXT, b"ack"))
            await trio.testing.wait_all_tasks_blocked()
            assert heard == [b"ack", b"ack"]
            transport.abort()

    async def test_a_flood_that_nobody_reads(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected(Config(receive_burst=10**6), stuck=True) as (transport, peer):
            start = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    assert transport.backlog < 70_000
                    await peer.send(frame(PING, b"p" * 125) * 100)
            assert transport.failure == "control_flood"
            closed = await ends(transport)
            assert (closed.code, closed.reason, closed.by) == (1006, "control_flood", "network")
            assert trio.current_time() == start

    async def test_while_closing(self, autojump_clock: trio.testing.MockClock) -> None:
        """It is ignored: the library would raise, and the peer's answer to our close frame be missed."""
        async with connected() as (transport, peer):
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.close, 1000, "bye")
                assert await peer.closed() == (1000, "bye")
                await peer.send(frame(PING, b"legal"))
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(close_frame(1000))
            assert await peer.rest() == b""
            assert trio.current_time() == start

    async def test_what_the_library_can_not_send_is_a_closed_connection_to_it(self) -> None:
        async with connected() as (transport, peer):
            await peer.send(close_frame(1000))
            await ends(transport)
            library = transport._messages._library
            assert library is not None
            with pytest.raises(ConnectionClosed):
                await library._send(Ping())


class TestThePeerCloses:
    @pytest.mark.parametrize(
        ("sent", "code", "reason"),
        [
            (close_frame(1000, b"bye"), 1000, "bye"),
            (close_frame(4999), 4999, ""),
            (frame(CLOSE), 1005, ""),
        ],
    )
    async def test_properly(
        self, sent: bytes, code: int, reason: str, autojump_clock: trio.testing.MockClock
    ) -> None:
        start = trio.current_time()
        async with connected() as (transport, peer):
            await peer.send(frame(TEXT, b"last"), sent)
            assert await transport.receive() == "last"
            closed = await ends(transport)
            assert (closed.code, closed.reason, closed.by) == (code, reason, "peer")
            assert transport.ended == Ending(code, reason, "peer")
            assert await peer.closed() == (code, reason)
            with pytest.raises(TransportClosed):
                transport.send_nowait(text_message("too late"))
        assert await peer.rest() == b""
        assert trio.current_time() == start

    async def test_what_comes_after_its_close_is_nothing(self) -> None:
        async with connected() as (transport, peer):
            heard: list[bytes] = []
            transport.open_lane(heard.append)
            await peer.send(close_frame(1000), frame(TEXT, b"late"))
            assert (await ends(transport)).code == 1000
            assert heard == []

    async def test_without_a_word(self) -> None:
        async with connected() as (transport, peer):
            await peer.stream.aclose()
            closed = await ends(transport)
            assert (closed.code, closed.by) == (1006, "network")
            assert (await ends(transport)).code == 1006

    async def test_each_exception_is_a_fresh_one(self) -> None:
        """One that is raised again and again would grow by a traceback each time."""
        async with connected() as (transport, peer):
            await peer.stream.aclose()
            assert await ends(transport) is not await ends(transport)


class TestTheProtocolIsBroken:
    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (frame(TEXT, b"plain", masked=False), 1002),
            (frame(TEXT, b"rsv", rsv=0x40), 1002),
            (frame(CONTINUATION, b"of nothing"), 1002),
            (frame(TEXT, b"begun", fin=False) + frame(TEXT, b"another"), 1002),
            (frame(3), 1002),
            (frame(PING, b"p" * 126), 1002),
            (frame(CLOSE, b"x"), 1002),
            (close_frame(1006), 1002),
            (frame(TEXT, b"\xff"), 1007),
            (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"x"), 1007),
            (close_frame(1000, b"\xff"), 1007),
            (frame(TEXT, b"x" * (CONFIG.max_message_bytes + 1)), 1009),
            (frame(BINARY, b"x" * (CONFIG.max_message_bytes + 1)), 1009),
            (frame(TEXT, "€".encode() * (CONFIG.max_message_bytes // 3 + 1)), 1009),
            (bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8) + b"mask", 1009),
            (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * CONFIG.max_fragments, 1009),
        ],
    )
    async def test_it_is_told_and_ended(
        self, sent: bytes, code: int, autojump_clock: trio.testing.MockClock
    ) -> None:
        start = trio.current_time()
        async with connected() as (transport, peer):
            transport.open_lane(lambda _: None)
            await peer.send(frame(TEXT, b"x" * 5000) + sent)
            assert await transport.receive() == LARGE
            closed = await ends(transport)
            assert (closed.code, closed.by) == (code, "us")
            got = await peer.closed()
            assert got is not None
            assert got[0] == code
            await peer.send(close_frame(code))
            await peer.stream.aclose()
        assert trio.current_time() == start

    async def test_its_messages_before_are_not_lost(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected(Config(max_message_bytes=256)) as (transport, peer):
            await peer.send(frame(TEXT, b"1"), frame(TEXT, b"2"), frame(TEXT, b"x" * 257))
            await trio.testing.wait_all_tasks_blocked()
            assert await transport.receive() == "1"
            assert await transport.receive() == "2"
            assert (await ends(transport)).code == 1009

    async def test_as_large_and_in_as_many_pieces_as_may_be(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with connected() as (transport, peer):
            await peer.send(frame(TEXT, b"x" * CONFIG.max_message_bytes))
            assert len(await transport.receive()) == CONFIG.max_message_bytes
            pieces = [frame(CONTINUATION, b"x", fin=False)] * (CONFIG.max_fragments - 2)
            await peer.send(frame(TEXT, b"x", fin=False), *pieces, frame(CONTINUATION, b"x"))
            assert len(await transport.receive()) == CONFIG.max_fragments


class TestTheLaneFails:
    async def test_it_ends_this_connection_with_4500(self, caplog: pytest.LogCaptureFixture) -> None:
        def lane(payload: bytes) -> None:
            raise LookupError("a mistake of ours")

        async with connected() as (transport, peer):
            transport.open_lane(lane)
            await peer.send(frame(TEXT, b"x"))
            closed = await ends(transport)
            assert (closed.code, closed.by) == (4500, "us")
            transport.send_nowait(text_message("an error frame"))
            assert await peer.text() == "an error frame"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.close, 1000, "")
                assert await peer.closed() == (4500, "internal error")
                await peer.stream.aclose()
        assert "a mistake of ours" in caplog.text

    async def test_an_answer_that_finds_no_connection_is_no_mistake(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected() as (transport, peer):

            def lane(payload: bytes) -> None:
                transport._guarded.poison("reset")
                transport.send_nowait(text_message("answer"))

            transport.open_lane(lane)
            await peer.send(frame(TEXT, b"x"))
            assert (await ends(transport)).by == "network"
        assert caplog.text == ""

    async def test_closing_from_within_the_lane(self) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            heard: list[bytes] = []

            def lane(payload: bytes) -> None:
                heard.append(payload)
                nursery.start_soon(transport.close, 4409, "superseded")

            transport.open_lane(lane)
            await peer.send(frame(TEXT, b"1"))
            assert await peer.closed() == (4409, "superseded")
            await peer.send(frame(TEXT, b"2"), frame(TEXT, LARGE.encode()), close_frame(4409))
            assert (await ends(transport)).code == 4409
            await trio.testing.wait_all_tasks_blocked()
            assert heard == [b"1"]


class TestClosing:
    async def test_properly(self, autojump_clock: trio.testing.MockClock) -> None:
        start = trio.current_time()
        async with connected() as (transport, peer):
            transport.send_nowait(text_message("last"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.close, 4503, "draining")
                assert await peer.text() == "last"
                assert await peer.closed() == (4503, "draining")
                with pytest.raises(TransportClosed) as caught:
                    transport.send_nowait(text_message("too late"))
                assert (caught.value.code, caught.value.by) == (4503, "us")
                await peer.send(close_frame(4503))
            assert await peer.rest() == b""
            assert transport.ended == Ending(4503, "draining", "us")
        assert trio.current_time() == start

    @pytest.mark.parametrize("stuck", [False, True])
    async def test_a_mute_peer(self, stuck: bool, autojump_clock: trio.testing.MockClock) -> None:
        async with connected(stuck=stuck) as (transport, peer):
            start = trio.current_time()
            await transport.close(1000, "")
            assert trio.current_time() - start == pytest.approx(CLOSE_TIMEOUT)
            if stuck:
                assert transport.failure == "aborted"
            else:
                assert await peer.closed() == (1000, "")
                assert await peer.rest() == b""

    async def test_the_reason_is_cut_between_characters(self) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            nursery.start_soon(transport.close, 1000, "x" + "€" * 100)
            assert await peer.closed() == (1000, "x" + "€" * 40)
            await peer.send(close_frame(1000))

    async def test_a_lone_surrogate_in_the_reason(self) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            nursery.start_soon(transport.close, 1000, "\ud800")
            assert await peer.closed() == (1000, "?")
            await peer.send(close_frame(1000))

    async def test_messages_that_nobody_received_do_not_hold_it_up(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with connected() as (transport, peer):
            await peer.send(*[frame(TEXT, b"unheard") for _ in range(5)])
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.close, 1000, "")
                await peer.closed()
                await peer.send(close_frame(1000))
            assert trio.current_time() == start

    async def test_whoever_receives_is_told(self) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            told: list[TransportClosed] = []

            async def receive() -> None:
                told.append(await ends(transport))

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(transport.close, 4409, "superseded")
            await trio.testing.wait_all_tasks_blocked()
            assert [(closed.code, closed.by) for closed in told] == [(4409, "us")]
            await peer.send(close_frame(4409))

    async def test_twice_at_once(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.close, 4503, "first")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(transport.close, 1000, "second")
            await transport.close(1000, "third")
            assert trio.current_time() - start == pytest.approx(CLOSE_TIMEOUT)
            assert await peer.closed() == (4503, "first")
            assert await peer.rest() == b""

    async def test_no_lane_opens_any_more(self) -> None:
        async with connected() as (transport, peer), trio.open_nursery() as nursery:
            heard: list[bytes] = []
            nursery.start_soon(transport.close, 1000, "")
            await peer.closed()
            transport.open_lane(heard.append)
            await peer.send(frame(TEXT, b"late"))
            await trio.testing.wait_all_tasks_blocked()
            assert heard == []
            await peer.send(close_frame(1000))

    async def test_it_is_shielded(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected() as (transport, peer):
            start = trio.current_time()
            with trio.CancelScope() as scope:
                scope.cancel()
                await transport.close(4501, "no hello")
            assert trio.current_time() - start == pytest.approx(CLOSE_TIMEOUT)  # the peer had its time
            assert await peer.closed() == (4501, "no hello")

    async def test_a_stuck_backlog_is_cut(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected(stuck=True) as (transport, peer):
            transport.send_nowait(text_message("stuck"))
            start = trio.current_time()
            await transport.close(4502, "slow")
            assert trio.current_time() - start == pytest.approx(CLOSE_TIMEOUT)
            with pytest.raises(trio.BrokenResourceError):
                await peer.send(b"x")

    async def test_no_progress_cuts(self, autojump_clock: trio.testing.MockClock) -> None:
        async with connected(stuck=True) as (transport, _):
            start = trio.current_time()
            transport.send_nowait(text_message("stuck"))
            closed = await ends(transport)
            assert (closed.code, closed.reason, closed.by) == (1006, "write_timeout", "network")
            assert trio.current_time() - start == pytest.approx(CONFIG.write_timeout)
            with pytest.raises(TransportClosed):
                transport.send_nowait(text_message("more"))


class TestTheBlock:
    async def test_its_end_closes(self) -> None:
        async with trio.open_nursery() as nursery:
            async with connected() as (_, peer):
                nursery.start_soon(peer.send, close_frame(1000))
            assert await peer.closed() == (1000, "")

    async def test_its_exception_comes_out_as_it_is(self, autojump_clock: trio.testing.MockClock) -> None:
        cause = LookupError("why")
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(REQUEST)
        with pytest.raises(KeyError) as caught:
            async with opened(ours, config=CONFIG, remote="test") as transport:
                await transport.accept(None)
                raise KeyError("what") from cause
        assert caught.value.__cause__ is cause
        await peer.head()
        assert await peer.closed() == (4500, "internal error")

    async def test_cancelled_it_leaves_at_once(self, autojump_clock: trio.testing.MockClock) -> None:
        theirs, ours = stream_pair()
        peer = Peer(theirs)
        await peer.send(REQUEST)
        start = trio.current_time()
        with trio.CancelScope() as scope:
            async with opened(ours, config=CONFIG, remote="test") as transport:
                await transport.accept(None)
                await peer.head()
                scope.cancel()
                await transport.receive()
        assert scope.cancelled_caught
        assert trio.current_time() == start
        assert await peer.rest() == b""
        with pytest.raises(TransportClosed):
            transport.send_nowait(text_message("nobody"))
        with pytest.raises(TransportClosed):
            await transport.receive()

    @pytest.mark.parametrize("aborted", [False, True])
    async def test_its_exception_survives_a_cancellation(
        self, aborted: bool, autojump_clock: trio.testing.MockClock
    ) -> None:
        with pytest.raises(KeyError), trio.CancelScope() as scope:
            theirs, ours = stream_pair()
            await theirs.send_all(REQUEST)
            async with opened(ours, config=CONFIG, remote="test") as transport:
                await transport.accept(None)
                if aborted:
                    transport.abort()
                else:
                    scope.cancel()
                raise KeyError("what")
        assert transport._gone is not None
        assert transport._gone.is_set()

    async def test_abort(self, autojump_clock: trio.testing.MockClock) -> None:
        start = trio.current_time()
        async with connected() as (transport, peer):
            transport.abort()
            transport.abort()
            assert transport.failure == "aborted"
            await trio.sleep_forever()
        assert transport.ended == Ending(1006, "aborted", "us")
        assert trio.current_time() == start
        assert await peer.rest() == b""
        transport.abort()
        with pytest.raises(TransportClosed):
            transport.send_nowait(text_message("nobody"))


async def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    head = request(b"Authorization: Bearer SECRET").replace(b"/ws", b"/ws?token=SECRET")
    async with connected(head=head) as (transport, peer):
        await peer.send(frame(TEXT, b"SECRET"), frame(PING, b"SECRET"), close_frame(1000))
        assert await transport.receive() == "SECRET"
        await ends(transport)
    assert caplog.records
    assert "SECRET" not in caplog.text
