"""Messages to the application: answered, sent again over cuts, bounded."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.client.outbox import MAX_MESSAGES
from trio_ws.errors import EventTooLarge, InvalidEvent, MessageRejected, SessionEnded

from .scripted import Server


async def test_send_returns_when_accepted(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        done = trio.Event()

        @nursery.start_soon
        async def send() -> None:
            await client.send("chat", {"text": "hi"}, id="m1")
            done.set()

        frame = await peer.expect("message")
        assert frame == {"t": "message", "id": "m1", "type": "chat", "payload": {"text": "hi"}}
        await peer.send({"t": "accepted", "id": "other"})
        await wait_all_tasks_blocked()
        assert not done.is_set()
        await peer.send({"t": "accepted", "id": "m1"}, {"t": "rejected", "id": "m1", "error": "late"})
        await done.wait()
        await peer.send({"t": "accepted", "id": "m1"})


async def test_send_raises_what_rejects(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(MessageRejected, match="no_handler"):
                await client.send("chat")

        frame = await peer.expect("message")
        assert len(frame["id"]) == 32
        assert frame["payload"] is None
        await peer.send({"t": "rejected", "id": frame["id"], "error": "no_handler"})


async def test_what_is_sent_before_there_is_a_connection_waits_for_it(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(client.send, "x", n)
            await wait_all_tasks_blocked()
        peer = await server.upgraded()
        await peer.expect("hello")
        await peer.welcome()
        for n in range(3):
            frame = await peer.expect("message")
            assert frame["payload"] == n
            await peer.send({"t": "accepted", "id": frame["id"]})


async def test_what_is_unanswered_is_sent_again_in_order_under_its_id(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        for n in range(3):
            nursery.start_soon(client.send, "x", n)
            await wait_all_tasks_blocked()
        first = [await peer.expect("message") for _ in range(3)]
        await peer.send({"t": "accepted", "id": first[1]["id"]})
        await wait_all_tasks_blocked()
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(resumed=True)
        assert [await peer.expect("message") for _ in range(2)] == [first[0], first[2]]
        await peer.ping()
        await peer.expect("pong")
        for frame in first:
            await peer.send({"t": "accepted", "id": frame["id"]})


async def test_a_cancelled_send_is_not_sent_again(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        with trio.move_on_after(1) as scope:
            await client.send("x")
        assert scope.cancelled_caught
        await peer.expect("message")
        peer.cut()
        peer = await server.session()
        assert peer.greeting == [{"t": "pong"}]


async def test_so_many_may_be_unanswered(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        for n in range(MAX_MESSAGES + 1):
            nursery.start_soon(client.send, "x", n)
        frames = [await peer.expect("message") for _ in range(MAX_MESSAGES)]
        await peer.ping()
        await peer.expect("pong")
        await peer.send({"t": "accepted", "id": frames[7]["id"]})
        last = await peer.expect("message")
        assert last["id"] not in {frame["id"] for frame in frames}
        for frame in [*frames, last]:
            await peer.send({"t": "accepted", "id": frame["id"]})


async def test_no_message_on_the_wire_is_above_the_limit(server: Server, clock: MockClock) -> None:
    async with server.connect(max_message_bytes=1000) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.send, "x", "y" * 300)
        await wait_all_tasks_blocked()
        peer = await server.upgraded()
        await peer.expect("hello")
        await peer.welcome()
        messages = 0
        frames: list[Any] = []
        while len(frames) < 20:
            found = await peer.next()
            messages += 1
            assert len(found.data) <= 1000
            peer.queue(found)
            while peer.queued:
                frames.append(await peer.expect("message"))
        assert messages == 10, "and each holds as many as fit"
        for frame in frames:
            await peer.send({"t": "accepted", "id": frame["id"]})


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"type": ""}, "type"),
        ({"type": "x" * 129}, "type"),
        ({"type": "x", "id": ""}, "id"),
        ({"type": "x", "id": "x" * 129}, "id"),
        ({"type": "\ud800"}, "type"),
        ({"type": "x", "payload": object()}, "payload"),
        ({"type": "x", "payload": float("nan")}, "payload"),
        ({"type": "x", "payload": "\ud800"}, "payload"),
    ],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
async def test_what_can_not_be_sent(
    server: Server, clock: MockClock, arguments: dict[str, Any], field: str
) -> None:
    async with server.connect() as client:
        with pytest.raises(InvalidEvent) as caught:
            await client.send(**arguments)
        assert caught.value.field == field


async def test_a_message_above_the_limit_is_refused_here(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        with pytest.raises(EventTooLarge):
            await client.send("x", "y" * 65536)


async def test_an_id_is_unanswered_once_at_a_time(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()

        async def send() -> None:
            await client.send("x", id="m")

        nursery.start_soon(send)
        await peer.expect("message")
        with pytest.raises(InvalidEvent):
            await client.send("x", id="m")
        await peer.send({"t": "accepted", "id": "m"})
        await wait_all_tasks_blocked()
        nursery.start_soon(send)
        await peer.expect("message")
        await peer.send({"t": "accepted", "id": "m"})


async def test_the_end_of_the_session_is_told_to_all_who_wait(server: Server, clock: MockClock) -> None:
    outcomes: list[int] = []
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()

        async def send() -> None:
            with pytest.raises(SessionEnded) as caught:
                await client.send("x")
            outcomes.append(caught.value.code)

        for _ in range(MAX_MESSAGES + 3):
            nursery.start_soon(send)
        await peer.expect("message")
        await peer.fail(4403)
        await wait_all_tasks_blocked()
        assert outcomes == [4403] * (MAX_MESSAGES + 3)
        await send()


async def test_a_normal_end_leaves_messages_unanswered_too(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(SessionEnded) as caught:
                await client.send("x")
            assert caught.value.code == 1000

        await peer.expect("message")
        await peer.close(1000)
