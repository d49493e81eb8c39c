"""What a client is told of agents' runs: the `run` of an event, snapshots and standing questions in their place, gaps
that a snapshot heals; and the two messages that runs take from their user."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.client.inbox import REDO_AFTER
from trio_ws.errors import InvalidConfig, MessageRejected
from trio_ws.event import Event, Gap

from .scripted import Server, event, gap

QUESTION = {"run": "r1", "question": "q1", "prompt": "Deploy?", "choices": ["yes", "no"], "ts": 2.0}
STANDING = {"t": "standing", "seq": 4, "questions": [QUESTION]}


def snapshot(seq: int, run: str = "r1", **payload: Any) -> dict[str, Any]:
    """A snapshot frame."""
    return {"t": "snapshot", "seq": seq, "run": run, "payload": {"status": "running"} | payload, "ts": 3.0}


async def test_they_come_in_order_and_are_no_part_of_the_accounting(server: Server, clock: MockClock) -> None:
    gaps: list[Gap] = []
    async with server.connect(on_gap=gaps.append) as client:
        peer = await server.session(seq=4)
        await peer.send(
            STANDING,
            event(5, run="r1"),
            gap(6, 7, snapshots=["r1"], healed=2, lost={"agent_delta": 2}),
            snapshot(9, text="Hello"),
            event(8),
            event(9),
        )
        assert await client.receive() == Event(
            seq=4, id="", type="standing", payload={"questions": [QUESTION]}, ts=0.0
        )
        assert (await client.receive()).run == "r1"
        assert await client.receive() == Event(
            seq=9, id="", type="snapshot", payload={"status": "running", "text": "Hello"}, ts=3.0, run="r1"
        )
        assert gaps == [
            Gap(
                first=6,
                last=7,
                reason="evicted",
                lost={"agent_delta": 2},
                snapshots=("r1",),
                healed=2,
            )
        ]
        assert [(await client.receive()).seq for _ in range(2)] == [8, 9]
        await trio.sleep(0.05)
        assert (await peer.expect("ack"))["seq"] == 8
        assert client.statistics().violations == 0


async def test_nothing_acks_them(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session(seq=4)
        await peer.send(snapshot(4), STANDING, snapshot(4, "r2"))
        for _ in range(3):
            await client.receive()
        with trio.move_on_after(5):
            await client.receive()
        await peer.send({"t": "ping", "seq": 4, "next": 1e6})
        await peer.expect("pong")
        assert client.statistics().acks == 0
        saved = client.saved()
        assert saved is not None
        assert saved.seq == 4


async def test_one_that_is_handed_back_comes_again_and_the_server_hears_nothing_of_it(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session(seq=4)
        await peer.send(snapshot(4))
        await client.nack(await client.receive())
        await peer.send(event(5))
        began = trio.current_time()
        again = await client.receive()
        assert (again.type, again.retry) == ("snapshot", 1)
        assert trio.current_time() - began == REDO_AFTER
        await client.nack(again)
        peer.cut()
        peer = await server.session(seq=4, head=4)
        assert peer.greeting[-1]["t"] == "pong"
        assert not [frame for frame in peer.greeting if frame["t"] == "nack"]
        await peer.send(event(5))
        assert [(await client.receive()).type for _ in range(2)] == ["snapshot", "token"]


async def test_a_snapshot_before_the_welcome_is_a_violation(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.send(snapshot(4))
        peer = await server.session()
        assert client.statistics().violations == 1


async def test_it_asks_to_start_with_snapshots_also_where_the_session_is_resumed(
    server: Server, clock: MockClock
) -> None:
    async with server.connect(from_="snapshot"):
        peer, hello = await server.hello()
        assert hello["from"] == "snapshot"
        await peer.welcome(4, heartbeat={"active": 1e6})
        await wait_all_tasks_blocked()
        peer.cut()
        peer, hello = await server.hello()
        assert (hello["seq"], hello["from"]) == (4, "snapshot")
    with pytest.raises(InvalidConfig, match="or snapshot"):
        async with server.connect(from_="then"):
            pass


async def test_answers_and_cancels_are_messages(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        for call, type, payload in (
            (client.answer("q1", "yes"), "agent_answer", {"question": "q1", "answer": "yes"}),
            (client.cancel_run("r1"), "agent_cancel", {"run": "r1"}),
            (client.cancel_run("r1", "enough"), "agent_cancel", {"run": "r1", "reason": "enough"}),
        ):
            nursery.start_soon(lambda call=call: call)
            frame = await peer.expect("message")
            assert (frame["type"], frame["payload"]) == (type, payload)
            await peer.send({"t": "accepted", "id": frame["id"]})

        @nursery.start_soon
        async def too_late() -> None:
            with pytest.raises(MessageRejected, match="already_answered"):
                await client.answer("q1", "no")

        frame = await peer.expect("message")
        await peer.send({"t": "rejected", "id": frame["id"], "error": "already_answered"})
