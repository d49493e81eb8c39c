"""Leaving: by the end of the block, by an exception, by cancellation, by `aclose`; and what leaves with it."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.client import Client, ClientState, SavedSession
from trio_ws.errors import SessionEnded

from .scripted import Peer, Server, event


async def two_events(server: Server, client: Client) -> Peer:
    """The second of them is in hand afterwards, the first processed and not acked yet."""
    peer = await server.session(ack={"events": 32, "delay": 10})
    await peer.send(event(1), event(2), event(3))
    await client.receive()
    await client.receive()
    return peer


async def test_leaving_acks_what_was_processed_and_says_bye(server: Server, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        said: list[object] = []

        async def listen(peer: Peer) -> None:
            said.extend(await peer.bye())

        async with server.connect() as client:
            peer = await two_events(server, client)
            nursery.start_soon(listen, peer)
            began = trio.current_time()
        assert trio.current_time() == began, "the answer was not waited for longer than it took"
    assert said == [{"t": "ack", "seq": 2}, {"t": "bye"}]
    assert client.state.name == "ended"


async def test_leaving_while_an_ack_is_being_written_loses_nothing(server: Server, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        said: list[object] = []

        async def listen(peer: Peer) -> None:
            said.extend(await peer.bye())

        async with server.connect() as client:
            peer = await server.session(ack={"events": 1, "delay": 10})
            nursery.start_soon(listen, peer)
            await peer.send(event(1), event(2))
            await client.receive()
            await client.receive()
            await trio.lowlevel.checkpoint()  # the ack of 1 is under way now
    assert said[-2:] == [{"t": "ack", "seq": 2}, {"t": "bye"}]


async def test_the_server_may_answer_bye_with_its_close(server: Server, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def answer(peer: Peer) -> None:
            await peer.expect("bye")
            await peer.close(1000)

        async with server.connect():
            nursery.start_soon(answer, await server.session())
            began = trio.current_time()
        assert trio.current_time() == began


async def test_without_bye_the_session_is_left_to_resume(server: Server, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        said: list[object] = []

        async def listen(peer: Peer) -> None:
            said.extend(await peer.bye())

        async with server.connect(bye=False) as client:
            peer = await two_events(server, client)
            nursery.start_soon(listen, peer)
            assert client.saved() == SavedSession(session="s1", epoch="e1", seq=1)
        assert client.saved() == SavedSession(session="s1", epoch="e1", seq=2)
    assert said == [{"t": "ack", "seq": 2}]


async def test_an_exception_leaves_what_is_in_hand_unacked(server: Server, clock: MockClock) -> None:
    class Oops(Exception):
        pass

    async with trio.open_nursery() as nursery:
        said: list[object] = []

        async def listen(peer: Peer) -> None:
            said.extend(await peer.bye())

        with pytest.raises(Oops) as caught:
            async with server.connect() as client:
                peer = await two_events(server, client)
                nursery.start_soon(listen, peer)
                raise Oops
        assert caught.value.__context__ is None
    assert said == [{"t": "ack", "seq": 1}, {"t": "bye"}]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_mute_server_does_not_hold_us(server: Server, clock: MockClock, cancelled: bool) -> None:
    with trio.CancelScope() as scope:
        async with server.connect():
            peer = await server.session()
            began = trio.current_time()
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(0.5 if cancelled else 1)
    assert [await peer.receive() for _ in range(3)] == [{"t": "bye"}, 1000, None]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_server_that_takes_nothing_does_not_hold_us(
    server: Server, clock: MockClock, cancelled: bool
) -> None:
    with trio.CancelScope() as scope:
        async with server.connect():
            await server.session()
            server.ends[0].stuck = True
            began = trio.current_time()
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(0.5 if cancelled else 1)


@pytest.mark.parametrize("stage", ["token", "tcp", "upgrade", "hello", "offline"])
async def test_leaving_while_there_is_no_session_takes_no_time(
    server: Server, clock: MockClock, stage: str
) -> None:
    async def forever() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async def hang() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    options: dict[str, object] = {"token": forever} if stage == "token" else {}
    if stage == "tcp":
        options["open_stream"] = hang
    server.absent = stage == "offline"
    for cancelled in (False, True):
        with trio.CancelScope() as scope:
            async with server.connect(**options) as client:
                if stage == "upgrade":
                    await server.accept()
                elif stage == "hello":
                    await server.hello()
                await wait_all_tasks_blocked()
                began = trio.current_time()
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        assert trio.current_time() == began
        assert client.state.name == "ended"


async def test_cancelling_at_once_is_fine(server: Server, clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with server.connect():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancellation_passes_through_bare(server: Server, clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        try:
            async with server.connect() as client:
                peer = await server.session()
                scope.cancel()
                async for _ in client:
                    pass
        except BaseException as error:
            assert isinstance(error, trio.Cancelled)  # noqa: PT017
            raise
    assert scope.cancelled_caught
    assert await peer.receive() == {"t": "bye"}


async def test_a_session_that_ends_leaves_the_block_bare(server: Server, clock: MockClock) -> None:
    with pytest.raises(SessionEnded):
        async with server.connect() as client:
            peer = await server.session()
            await peer.fail(4403)
            async for _ in client:
                pass


async def test_a_group_of_the_blocks_own_is_left_as_it_is(server: Server, clock: MockClock) -> None:
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with server.connect():
            raise group
    assert caught.value.message == "mine"
    assert caught.value.exceptions == group.exceptions


async def test_a_callback_that_raises_while_the_block_is_cancelled(server: Server, clock: MockClock) -> None:
    def on_state(state: ClientState) -> None:
        if state.name == "ended":
            raise ValueError

    with trio.CancelScope() as scope, pytest.raises(ValueError):
        async with server.connect(on_state=on_state):
            await server.session()
            scope.cancel()
            await trio.sleep_forever()
    assert not scope.cancelled_caught


async def test_aclose_ends_the_loop_and_gives_back_what_waits(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await two_events(server, client)
        said: list[object] = []

        @nursery.start_soon
        async def listen() -> None:
            said.extend(await peer.bye())

        await client.aclose()
        assert [e async for e in client] == []
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
        with pytest.raises(trio.ClosedResourceError):
            await client.send("x")
        with pytest.raises(trio.ClosedResourceError):
            await client.wait_live()
        await client.aclose()
    assert said == [{"t": "ack", "seq": 1}, {"t": "bye"}]
    assert len(server.attempts) == 1


async def test_aclose_wakes_who_waits(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        await server.session()

        @nursery.start_soon
        async def receive() -> None:
            async for _ in client:
                raise AssertionError

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.send("x")

        @nursery.start_soon
        async def wait() -> None:
            await client.wait_live()

        await wait_all_tasks_blocked()
        await client.aclose()


async def test_leaving_after_the_end_is_quiet(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.fail(4403)
        await wait_all_tasks_blocked()
        assert client.state.name == "ended"
        client.cut()
        await client.aclose()


async def test_leaving_at_every_moment_leaves_nothing_behind(server: Server, clock: MockClock) -> None:
    """`Server.connect` checks that no stream and no task is left; here for a cancellation after each of many steps."""
    for steps in range(40):
        with trio.CancelScope() as scope:
            async with server.connect() as client, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def serve() -> None:
                    peer = await server.session()
                    await peer.send(event(1), event(2))
                    peer.cut()
                    peer = await server.session(2)
                    await peer.send(event(3))
                    await peer.fail(4403)

                @nursery.start_soon
                async def receive() -> None:
                    with pytest.raises(SessionEnded):
                        async for _ in client:
                            pass

                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                    if steps > 20:
                        await wait_all_tasks_blocked()
                        await trio.sleep(0.02)
                scope.cancel()
        while True:  # what this round has not taken must not be served to the next
            try:
                server._take.receive_nowait()
            except trio.WouldBlock:
                break
    gc.collect()
