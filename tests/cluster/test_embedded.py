"""What an application does with the hub of a node: it reaches its users wherever their logs are."""

from __future__ import annotations

import httpx
import pytest
import trio

from trio_ws.admin import create_app
from trio_ws.errors import ConfirmationTimeout, InvalidEvent, OwnedElsewhere, RunEnded, UnknownRun
from trio_ws.event import Draft, Event, Priority
from trio_ws.publisher import AsyncPublisher

from .test_node import connect, payloads
from .world import running

CRITICAL = Priority.CRITICAL


async def test_a_receipt_is_good_for_as_long_as_its_event_is_somewhere() -> None:
    async with running("a", "b", "c") as (_, (a, b, c)):
        local = await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        remote = await c.hub.publish("ada", "alarm", 2, priority=CRITICAL)
        peer = await connect(b)  # the log comes along
        assert local.state == "moved"
        outcomes: list[float] = []

        async def wait(receipt: object) -> None:
            outcomes.append((await receipt.confirmed()).after)  # type: ignore[attr-defined]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, local)
            nursery.start_soon(wait, remote)
            await trio.sleep(1)
            assert not outcomes
            peer.ack(2)
        assert outcomes == pytest.approx([1.0, 1.0], abs=0.2)
        assert remote.state == "confirmed"


async def test_a_receipt_says_so_when_nobody_confirms() -> None:
    async with running("a", "b") as (_, (a, b)):
        await connect(a)
        receipt = await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        began = trio.current_time()
        with pytest.raises(ConfirmationTimeout) as caught:
            await receipt.confirmed(2)
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
        assert caught.value.state == "sent"


async def test_a_receipt_waits_while_its_owner_dies() -> None:
    async with running("a", "b") as (_, (a, b)):
        await connect(a)
        receipt = await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipt.confirmed, 20)
            await trio.sleep(1)
            await a.kill()
            await trio.sleep(1)
            peer = await connect(b, acks=True)
        assert payloads(peer) == [1]


async def test_who_asks_to_be_called_is_called_also_from_afar() -> None:
    async with running("a", "b") as (_, (a, b)):
        peer = await connect(a)
        called: list[int] = []
        receipts = [await b.hub.publish("ada", "alarm", n, priority=CRITICAL) for n in range(3)]
        for number, receipt in enumerate(receipts):
            receipt.call_when_resolved(lambda number=number: called.append(number))  # type: ignore[misc]
        forgotten = called.append
        receipts[0].call_when_resolved(lambda: forgotten(9))
        await trio.sleep(0.5)
        peer.ack(3)
        await trio.sleep(0.5)
        assert sorted(called) == [0, 1, 2, 9]


async def test_an_event_goes_to_many_wherever_they_are() -> None:
    async with running("a", "b") as (_, (a, b)):
        ada, bob = await connect(a, "ada", acks=True), await connect(b, "bob", acks=True)
        receipts = await a.hub.broadcast(["ada", "bob", "carol"], "alarm", {"n": 1}, priority=CRITICAL)
        assert [receipt.user for receipt in receipts] == ["ada", "bob", "carol"]
        assert len({receipt.id for receipt in receipts}) == 1
        await trio.sleep(0.1)
        assert payloads(ada) == payloads(bob) == [{"n": 1}]
        with pytest.raises(InvalidEvent):
            await a.hub.broadcast(["ada", "\n"], "alarm")
        with pytest.raises(InvalidEvent):  # one name, which is not several of a letter each
            await a.hub.broadcast("ada", "alarm")
        with pytest.raises(InvalidEvent):
            await a.hub.broadcast(["ada", "bob"], "alarm", priority=CRITICAL, payload="x" * 10**6)


async def test_what_does_not_wait_brings_the_log_or_says_who_has_it() -> None:
    async with running("a", "b") as (_, (a, b)):
        await a.hub.publish("ada", "note", 1)
        await connect(a, "bob")
        for user in ("ada", "bob"):
            with pytest.raises(trio.WouldBlock):
                b.hub.publish_nowait(user, "note", 2)
        await trio.sleep(0.2)
        assert b.hub.publish_nowait("ada", "note", 2).seq == 2
        with pytest.raises(OwnedElsewhere) as caught:
            b.hub.publish_nowait("bob", "note", 2)
        assert caught.value.node == "a"


async def test_a_subscription_brings_the_log_and_ends_when_it_goes() -> None:
    async with running("a", "b") as (_, (a, b)):
        await a.hub.publish("ada", "note", 1)
        with b.hub.subscribe("ada") as events:
            (event,) = await events.receive()
            assert isinstance(event, Event)
            assert event.payload == 1
            assert "ada" in b.hub.ownership.owned
            b.hub.drop("ada")
            with pytest.raises(trio.EndOfChannel):
                await events.receive()
        await connect(a)
        with b.hub.subscribe("ada") as events, pytest.raises(OwnedElsewhere):
            await events.receive()


async def test_a_channel_reaches_the_user_too() -> None:
    async with running("a", "b") as (_, (a, b)):
        peer = await connect(a, acks=True)
        with b.hub.channel("ada") as channel:
            await channel.send(Draft(type="alarm", payload=1, priority=CRITICAL))
        await trio.sleep(0.1)
        assert payloads(peer) == [1]


async def test_a_leased_run_goes_on_where_its_log_goes() -> None:
    async with running("a", "b") as (_, (a, b)):
        handle = await a.hub.open_run("ada", "r1", lease=30)
        await handle.publish("note", 1)
        await a.kill()
        await trio.sleep(4)
        again = await b.hub.open_run("ada", "r1", lease=30)
        await again.close("completed")
        (run,) = await b.hub.runs("ada")
        assert run["status"] == "completed"


async def test_runs_are_seen_and_cancelled_from_any_node() -> None:
    async with running("a", "b", "c") as (_, (a, b, c)):
        await connect(a)
        async with a.hub.run("ada", "r1", name="researcher") as run:
            (seen,) = await b.hub.runs("ada")
            assert (seen["run"], seen["name"], seen["status"]) == ("r1", "researcher", "running")
            await b.hub.cancel_run("ada", "r1", "enough")
            await c.hub.cancel_run("ada", "r1")  # to ask for it again is fine
            await trio.sleep_forever()
        assert run.outcome == "cancelled"
        assert [seen["status"] for seen in await c.hub.runs("ada")] == ["cancelled"]
        with pytest.raises(RunEnded, match=r"now: the run is cancelled$"):
            await b.hub.cancel_run("ada", "r1")
        with pytest.raises(UnknownRun):
            await b.hub.cancel_run("ada", "r2")
        with pytest.raises(InvalidEvent):
            await b.hub.cancel_run("ada", "r1", "x" * 2000)
        assert "ada" in a.hub.engine.buffer.mailboxes


async def test_a_run_is_cancelled_though_its_log_goes_elsewhere_meanwhile() -> None:
    async with running("a", "b", "c") as (_, (a, b, c)):
        await connect(a)
        await a.hub.open_run("ada", "r1", lease=60)
        assert [seen["status"] for seen in await b.hub.runs("ada")] == [
            "running"
        ]  # so b believes that a has it
        await a.kill()
        await b.hub.cancel_run("ada", "r1")
        assert [seen["status"] for seen in await c.hub.runs("ada")] == ["cancelling"]


async def test_a_run_is_played_from_any_node() -> None:
    async with running("a", "b") as (_, (a, b)):
        create_app(a.hub)  # what answers for other nodes
        peer = await connect(a, acks=True)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(b.hub)))
        async with client, AsyncPublisher("http://here", client=client) as publisher:
            async with publisher.run("ada", name="researcher") as run:
                await run.think("hm")
                async with run.tool("search") as tool:
                    tool.result = 1
                await run.delta("done")
            assert run.outcome == "completed"
        assert [frame["type"] for frame in peer.kinds("event")] == [
            "agent_started",
            "agent_thinking",
            "tool_executing",
            "tool_completed",
            "agent_delta",
            "agent_completed",
        ]


async def test_what_a_node_knows_of_users_is_what_it_has() -> None:
    async with running("a", "b") as (_, (a, b)):
        await a.hub.publish("ada", "note", 1)
        assert a.hub.users() == ["ada"]
        assert b.hub.users() == []
        assert a.hub.describe("ada") is not None
        assert b.hub.describe("ada") is None
        with pytest.raises(InvalidEvent):
            await b.hub.place("a\nb")
