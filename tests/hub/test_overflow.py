"""More events than memory has room for: they go to the store, and come back in their order as there is room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import trio_ws
from trio_ws.core.records import Part
from trio_ws.hub import Hub
from trio_ws.store import MemoryStore

from .test_durable import Store, connected, life, until

SMALL: dict[str, Any] = {"max_events_per_user": 10, "max_events": 40}


def spilled(hub: Hub) -> int:
    return hub.engine.books.spilled


def here(hub: Hub, user: str = "ada") -> int:
    return len(hub.engine.buffer.mailboxes[user].entries)


@asynccontextmanager
async def small(store: MemoryStore, **limits: Any) -> AsyncIterator[Hub]:
    async with life(store, **{**SMALL, **limits}) as hub:
        yield hub
        books, boxes = hub.engine.books, hub.engine.buffer.mailboxes.values()
        assert books.spilled == sum(box.rest.events for box in boxes if box.rest is not None)
        assert books.events <= hub.config.max_events
        assert books.landing_events >= 0


async def publish(hub: Hub, count: int, user: str = "ada", first: int = 1, **options: Any) -> None:
    for number in range(first, first + count):
        await hub.publish(user, "agent_started", number, **options)


async def test_what_memory_has_no_room_for_comes_all_the_same_in_order_and_once() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 100)
        assert (here(hub), spilled(hub)) == (10, 90)
        assert hub.statistics().events_held == 100
        peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 100)
        assert [event["payload"] for event in peer.kinds("event")] == list(range(1, 101))
        assert not peer.kinds("gap")
        await until(lambda: hub.statistics().events_settled == 100)
        assert spilled(hub) == 0
        await publish(hub, 5, first=101)
        await until(lambda: len(peer.seqs) == 105)


async def test_it_is_there_after_a_crash() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 100)
    async with small(store) as hub:
        await hub.load("ada")
        assert (here(hub), spilled(hub), hub.statistics().events_held) == (10, 90, 100)
        await publish(hub, 20, first=101)
        peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 120)
        assert peer.seqs == list(range(1, 121))
        assert not peer.kinds("gap")


@pytest.mark.parametrize("at", range(3, 100, 12))
async def test_a_client_goes_on_after_a_crash_while_the_rest_is_read_back(at: int) -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 100)
        first = await connected(hub, acks=True)
        await until(lambda: first.cursor >= at)
    async with small(store) as hub:
        second = await connected(hub, before=first, acks=True)
        assert second.welcome["resumed"]
        assert second.welcome["session"] == first.welcome["session"]
        await until(lambda: second.cursor == 100)
        assert second.seqs == list(range(first.cursor + 1, 101))
        assert not [gap for gap in second.kinds("gap") if gap["reason"] != "settled"]


async def test_what_was_read_back_is_not_shown_before_the_store_knows_where_the_rest_begins() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 30)
        peer = await connected(hub)
        await until(lambda: len(peer.seqs) == 10)
        await trio.sleep(0.1)
        store.hold()
        peer.ack(10)
        await until(lambda: spilled(hub) == 10)
        await trio.sleep(0.1)
        assert len(peer.seqs) == 10
        store.let_go()
        await until(lambda: len(peer.seqs) == 20)


async def test_where_the_store_is_full_too_publishers_wait_and_are_served() -> None:
    store = Store()
    async with small(store, max_stored_events_per_user=20) as hub:
        await publish(hub, 30)
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("ada", "agent_started", 31)
        assert (await hub.publish("bob", "agent_started")).seq == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, hub, 30, "ada", 31)
            await trio.sleep(1)
            assert hub.statistics().publishers_waiting == 1
            peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 60)
        assert [event["payload"] for event in peer.kinds("event")] == list(range(1, 61))


async def test_none_is_stored_where_that_is_switched_off() -> None:
    async with small(Store(), max_stored_events_per_user=0) as hub:
        await publish(hub, 10)
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("ada", "agent_started", 11)


async def test_what_is_not_critical_goes_behind_too_and_makes_room_there() -> None:
    store = Store()
    async with small(store, max_stored_events_per_user=40) as hub:
        await publish(hub, 10)
        for number in range(100):
            await hub.publish("ada", "note", number)
            if number % 4 == 0:
                await hub.publish("ada", "agent_started", number)
        await trio.sleep(0.1)
        box = hub.engine.buffer.mailboxes["ada"]
        assert box.rest is not None
        assert box.rest.events <= 40
        assert hub.statistics().events_evicted >= 80
        peer = await connected(hub, acks=True)
        await until(lambda: peer.cursor == 135)
        critical = [event for event in peer.kinds("event") if event["type"] == "agent_started"]
        assert len(critical) == 35
        assert {gap["reason"] for gap in peer.kinds("gap")} == {"evicted"}
        assert sum(gap["critical"] for gap in peer.kinds("gap")) == 0


async def test_what_filled_the_store_in_another_life_makes_room_in_this_one() -> None:
    store = Store()
    async with small(store, max_stored_events_per_user=100) as hub:
        await publish(hub, 10)
        for number in range(40):
            await hub.publish("ada", "note", number)
        await trio.sleep(0.1)
    async with small(store, max_stored_events_per_user=40) as hub:
        await hub.load("ada")
        with trio.fail_after(10):
            await publish(hub, 20)
        assert hub.statistics().events_evicted == 40


async def test_a_duplicate_of_what_is_not_durable_yet_waits_too() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 10)
        await trio.sleep(0.1)
        store.hold()
        hub.publish_nowait("ada", "agent_started", 11, id="it")
        again = hub.publish_nowait("ada", "agent_started", 11, id="it")
        assert again.duplicate
        assert again.to_be_committed
        store.let_go()
        await again.committed()
        assert not again.to_be_committed


@pytest.mark.parametrize("durability", ["none", "critical", "all"])
async def test_order_stays_whatever_is_durable(durability: str) -> None:
    store = Store()
    async with small(store, durability=durability) as hub:
        await publish(hub, 10)
        for number in range(11, 30):
            await hub.publish("ada", "note" if number % 2 else "agent_started", number)
        await trio.sleep(0.1)
    async with small(store, durability=durability) as hub:
        peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 29)
        assert [event["payload"] for event in peer.kinds("event")] == list(range(1, 30))


async def test_a_key_is_known_wherever_its_event_is() -> None:
    store = Store()
    async with small(store) as hub:
        for number in range(60):
            await hub.publish("ada", "agent_started", number, id=f"id{number}")
        again = await hub.publish("ada", "agent_started", "other", id="id50")
        assert (again.duplicate, again.seq, again.state) == (True, 51, "held")
    async with small(store) as hub:
        again = await hub.publish("ada", "agent_started", "other", id="id50")
        assert (again.duplicate, again.seq, again.state) == (True, 51, "held")
        peer = await connected(hub, acks=True)
        await until(lambda: again.state == "settled")
        await until(lambda: peer.cursor == 60)
        assert (await hub.publish("ada", "agent_started", "other", id="id50")).duplicate
        assert [event["payload"] for event in peer.kinds("event")] == list(range(60))


async def test_a_confirmation_of_what_is_in_the_store_can_be_waited_for() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 30)
        receipt = await hub.publish("ada", "agent_completed", id="last")
        other = await hub.publish("ada", "agent_completed", id="last")
        assert receipt.state == "held"
        with pytest.raises(trio_ws.ConfirmationTimeout, match="held"):
            await receipt.confirmed(1)
        called: list[int] = []
        receipt.call_when_resolved(lambda: called.append(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipt.confirmed, 60)
            nursery.start_soon(other.confirmed, 60)
            await trio.sleep(1)
            await connected(hub, acks=True)
        assert (receipt.state, other.state, called) == ("settled", "settled", [1])


async def test_a_log_with_a_rest_falls_asleep_and_comes_back() -> None:
    store = Store()
    async with small(store, max_events=20) as hub:
        receipts = {}
        for user in range(6):
            for number in range(30):
                receipts[user, number] = await hub.publish(f"user{user}", "agent_started", number)
        stats = hub.stats()
        assert stats["store"]["users_asleep"] == 4
        assert stats["store"]["events_asleep"] == 120
        assert stats["delivery"]["events_held"] == 180
        for user in range(6):
            peer = await connected(hub, f"user{user}", acks=True)
            await until(lambda peer=peer: len(peer.seqs) == 30)
            assert not peer.kinds("gap")
            peer.die()
        assert hub.statistics().events_settled == 180
        assert {receipt.state for receipt in receipts.values()} == {"settled"}


async def test_where_others_who_are_there_fill_memory_all_of_a_log_is_in_the_store() -> None:
    store = Store()
    async with small(store, max_events=20) as hub:
        for user in ("bob", "eve"):
            await connected(hub, user)
            await publish(hub, 10, user)
        await publish(hub, 15)
        assert (here(hub), spilled(hub)) == (0, 15)
    async with small(store, max_events=20) as hub:
        peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 15)


async def test_what_expires_in_the_store_is_a_dead_letter_in_time() -> None:
    dead: list[object] = []

    async def take(letter: trio_ws.DeadLetter) -> None:
        dead.append(letter.payload)

    store = Store()
    opened = trio_ws.open_hub(
        trio_ws.Config(**SMALL),
        store=store,
        on_dead_letter=take,
        wall_clock=lambda: 1e9 + trio.current_time(),
    )
    async with opened as hub:
        await publish(hub, 20)
        await publish(hub, 10, first=21, ttl=5.0)
        await publish(hub, 10, first=31)
        await trio.sleep(4)
        assert not dead
        await trio.sleep(3)
        assert dead == list(range(21, 31))
        assert hub.statistics().events_expired == 10
        assert hub.statistics().balanced
        peer = await connected(hub, acks=True)
        await until(lambda: peer.cursor == 40)
        assert len(peer.seqs) == 30
        assert [(gap["from"], gap["to"], gap["reason"], gap["critical"]) for gap in peer.kinds("gap")] == [
            (21, 30, "expired", 10)
        ]
        assert hub.engine.buffer.mailboxes["ada"].rest is None


async def test_what_expires_in_the_store_while_all_is_asleep_goes_too() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 10)
        await publish(hub, 20, first=11, ttl=20.0)
    async with small(store, cleanup_interval=1.0) as hub:
        await trio.sleep(30)
        assert hub.statistics().events_expired == 20
        assert (spilled(hub), hub.statistics().events_held) == (0, 10)


async def test_what_is_not_to_be_found_in_the_store_is_told_of_as_lost() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 29)
        last = await hub.publish("ada", "agent_completed")
        for seq in (11, 15, 30):
            del store._logs["ada"].events[seq]
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio_ws.ConfirmationTimeout, match="evicted"):
                    await last.confirmed(60)

            nursery.start_soon(wait)
            await trio.sleep(0.1)
            peer = await connected(hub, acks=True)
        await until(lambda: peer.cursor == 30)
        assert [(gap["from"], gap["reason"], gap["critical"]) for gap in peer.kinds("gap")] == [
            (11, "reset", 1),
            (15, "reset", 1),
            (30, "reset", 1),
        ]
        assert spilled(hub) == 0


async def test_a_session_that_is_away_does_not_keep_others_from_what_waits() -> None:
    store = Store()
    async with small(store) as hub:
        away = await connected(hub)
        await publish(hub, 5)
        away.die()
        await publish(hub, 45, first=6)
        peer = await connected(hub, acks=True)
        await until(lambda: peer.cursor == 50)
        assert len(peer.seqs) == 50
        back = away.again(5)
        await until(lambda: back.cursor == 50)


async def test_a_plain_client_takes_what_waits_and_so_comes_to_what_is_new() -> None:
    """It is given nothing that was in memory before it came; but were it not given the rest, it would wait for ever.

    And what it was not given waits for the next session.
    """
    store = Store()
    async with small(store) as hub:
        await publish(hub, 100)
        plain = await connected(hub, plain=True)
        await publish(hub, 1, first=101)
        await until(lambda: plain.frames[-1:] and plain.frames[-1]["payload"] == 101)
        assert [event["payload"] for event in plain.frames] == list(range(11, 102))
        peer = await connected(hub, acks=True)
        await until(lambda: peer.seqs[:10] == list(range(1, 11)))


async def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    class Blind(Store):
        blind = False

        async def read(self, user: str, part: Part) -> Any:
            if self.blind:
                raise trio_ws.StoreError("an I/O error")
            return await super().read(user, part)

    store = Blind()
    async with small(store) as hub:
        await publish(hub, 30)
        store.blind = True
        peer = await connected(hub, acks=True)
        await trio.sleep(3)
        assert len(peer.seqs) == 10
        store.blind = False
        await until(lambda: len(peer.seqs) == 30)


async def test_what_is_on_its_way_to_the_store_is_bounded() -> None:
    store = Store()
    async with small(store) as hub:
        await publish(hub, 10)
        await trio.sleep(0.1)
        store.hold()
        for number in range(10):
            hub.publish_nowait("ada", "agent_started", number)
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("ada", "agent_started", 10)
        store.let_go()
        await publish(hub, 30, first=11)
        assert hub.engine.books.landing_events == 0


async def test_bytes_spill_as_events_do() -> None:
    store = Store()
    limits: dict[str, Any] = {"max_bytes_per_user": 8192, "max_event_bytes": 4096, "max_events_per_user": 200}
    async with life(store, **limits) as hub:
        for number in range(30):
            await hub.publish("ada", "agent_started", {"n": number, "text": "x" * (100 * number)})
        assert spilled(hub) > 10
        peer = await connected(hub, acks=True)
        box = hub.engine.buffer.mailboxes["ada"]

        def done() -> bool:
            assert box.bytes <= 8192
            return len(peer.seqs) == 30

        await until(done)
        assert [event["payload"]["n"] for event in peer.kinds("event")] == list(range(30))
