"""Subscriptions: a user's events as a channel in the same process."""

from __future__ import annotations

import pytest
import trio

from trio_ws.errors import LocalError
from trio_ws.event import Event, Gap, Priority
from trio_ws.hub import Subscription, open_hub, subscription

from .peers import running, settled


def _seqs(batch: list[Event | Gap]) -> list[int]:
    return [item.seq for item in batch if isinstance(item, Event)]


async def test_batches_hold_what_waits_in_order() -> None:
    async with running() as world:
        with world.hub.subscribe("ada") as events:
            for n in range(3):
                await world.hub.publish("ada", "token", n)
            await settled()
            batch = await events.receive()
            assert _seqs(batch) == [1, 2, 3]
            event = batch[0]
            assert isinstance(event, Event)
            assert (event.type, event.payload, event.ts) == ("token", 0, 1e9)


async def test_asking_for_the_next_batch_confirms_the_one_before() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        with world.hub.subscribe("ada") as events:
            receipt = await world.hub.publish("ada", "agent_started")
            await events.receive()
            assert receipt.state == "sent"
            nursery.start_soon(events.receive)
            await settled()
            assert receipt.state == "settled"
            await world.hub.publish("ada", "agent_completed")
            await settled()


async def test_receiving_waits_and_a_cancelled_wait_loses_nothing() -> None:
    async with running() as world:
        with world.hub.subscribe("ada") as events:
            with trio.move_on_after(1) as scope:
                await events.receive()
            assert scope.cancelled_caught
            await world.hub.publish("ada", "token")
            await settled()
            with trio.CancelScope() as scope:
                scope.cancel()
                await events.receive()
            assert scope.cancelled_caught
            assert _seqs(await events.receive()) == [1]


async def test_it_may_be_iterated_over() -> None:
    async with running() as world:
        got: list[int] = []
        async with world.hub.subscribe("ada") as events:
            for _ in range(3):
                await world.hub.publish("ada", "token")
            async for batch in events:
                got += _seqs(batch)
                if len(got) == 3:
                    break
        assert got == [1, 2, 3]


async def test_gaps_are_told_in_their_place_and_confirmed_as_events_are() -> None:
    async with running(max_events_per_user=3) as world, trio.open_nursery() as nursery:
        await world.hub.publish("ada", "agent_started")
        await world.hub.publish("ada", "token", priority=Priority.LOW)
        for _ in range(2):
            await world.hub.publish("ada", "agent_thinking")
        with world.hub.subscribe("ada") as events:
            await settled()
            first, gap, *rest = await events.receive()
            assert isinstance(first, Event)
            assert gap == Gap(first=2, last=2, reason="evicted", lost={"token": 1})
            assert _seqs([first, *rest]) == [1, 3, 4]
            nursery.start_soon(events.receive)
            await settled()
            assert world.hub.engine.books.settled == 3
            await world.hub.publish("ada", "agent_completed")
            await settled()


async def test_a_slow_receiver_stops_the_flow_and_is_waited_for() -> None:
    async with running(max_events_per_user=300) as world:
        with world.hub.subscribe("ada") as events:
            await settled()
            for n in range(300):
                await world.hub.publish("ada", "agent_thinking", n)
                await settled()
            assert len(events._wire._frames) <= subscription.HELD + 2
            await trio.sleep(3600)
            got: list[int] = []
            while len(got) < 300:
                got += _seqs(await events.receive())
            assert got == list(range(1, 301))


async def test_a_receiver_that_takes_long_over_a_critical_event_is_waited_for() -> None:
    async with running() as world:
        with world.hub.subscribe("ada") as events:
            receipt = await world.hub.publish("ada", "agent_started")
            assert _seqs(await events.receive()) == [1]
            await trio.sleep(300)
            assert receipt.state == "sent"
            assert world.hub.engine.books.redelivered == 0
            assert world.hub.stats()["delivery"]["messages_timeout"] == 1
            await world.hub.publish("ada", "agent_completed")
            assert _seqs(await events.receive()) == [2]
            assert receipt.state == "settled"


async def test_it_is_sent_no_heartbeats() -> None:
    async with running() as world:
        with world.hub.subscribe("ada") as events:
            await trio.sleep(3600)
            assert len(events._wire._frames) == 2  # welcome and live


async def test_closing_ends_the_session_and_leaves_what_was_not_confirmed() -> None:
    async with running() as world:
        events = world.hub.subscribe("ada")
        await world.hub.publish("ada", "agent_started")
        await events.receive()
        await events.aclose()
        events.close()
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 0}
        with pytest.raises(trio.ClosedResourceError):
            await events.receive()
        peer = world.peer().connect(start="pending")
        await settled()
        assert peer.seqs == [1]


async def test_closing_wakes_who_receives() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        events = world.hub.subscribe("ada")

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await events.receive()

        nursery.start_soon(receive)
        await settled()
        events.close()


async def _until_the_end(events: Subscription, got: list[int]) -> None:
    async for batch in events:
        got += _seqs(batch)
    got.append(0)


async def test_a_drain_ends_it_with_all_that_was_published() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        got: list[int] = []
        nursery.start_soon(_until_the_end, world.hub.subscribe("ada"), got)
        await settled()
        await world.hub.publish("ada", "agent_started")
        await world.hub.drain()
        await settled()
        assert got == [1, 0]


async def test_a_hub_that_ends_by_an_error_ends_it_too() -> None:
    got: list[int] = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(ZeroDivisionError):
            async with open_hub() as hub:
                nursery.start_soon(_until_the_end, hub.subscribe("ada"), got)
                await settled()
                raise ZeroDivisionError
        await settled()
        assert got == [0]


async def test_it_counts_as_one_of_the_users_sessions() -> None:
    async with running(max_connections_per_user=1) as world, trio.open_nursery() as nursery:
        got: list[int] = []
        nursery.start_soon(_until_the_end, world.hub.subscribe("ada"), got)
        await settled()
        world.peer().connect()
        await settled()
        assert got == [0]


async def test_it_is_refused_as_others_are() -> None:
    async with running(max_connections_per_user=1, over_limit="reject") as world:
        world.peer().connect()
        with pytest.raises(LocalError, match="1 connections per user"):
            world.hub.subscribe("ada")
