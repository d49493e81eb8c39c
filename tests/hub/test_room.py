"""Waiting for room: who waits, in what order, and all that ends the wait."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws.core import wire
from trio_ws.errors import ConfirmationTimeout, EventTooLarge, HubClosed
from trio_ws.event import Priority
from trio_ws.hub import Hub, open_hub

from .peers import World, running, settled


class Publishers:
    """Tasks that publish one event each, and what came of it."""

    def __init__(self, hub: Hub, nursery: trio.Nursery) -> None:
        self.hub, self.nursery = hub, nursery
        self.done: list[tuple[str, int]] = []
        self.refused: list[str] = []
        self.scopes: dict[str, trio.CancelScope] = {}

    async def start(self, name: str, user: str = "ada", **options: Any) -> None:
        """Have one publish, and run until it waits or is through."""
        self.scopes[name] = trio.CancelScope()
        self.nursery.start_soon(self._publish, name, user, options)
        await settled()

    async def _publish(self, name: str, user: str, options: dict[str, Any]) -> None:
        with self.scopes[name]:
            try:
                receipt = await self.hub.publish(user, "agent_started", **options)
            except HubClosed:
                self.refused.append(name)
            else:
                self.done.append((name, receipt.seq))


async def _fill(world: World, user: str = "ada") -> None:
    for _ in range(world.hub.config.max_events_per_user):
        await world.hub.publish(user, "agent_started")


async def test_a_mailbox_full_of_critical_events_makes_publishers_wait() -> None:
    async with running(max_events_per_user=2) as world, trio.open_nursery() as nursery:
        await _fill(world)
        with pytest.raises(trio.WouldBlock):
            world.hub.publish_nowait("ada", "token", priority=Priority.LOW)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        assert publishers.done == []
        assert world.hub.statistics().publishers_waiting == 1
        assert world.hub.describe("ada")["buffer"]["publishers_waiting"] == 1  # type: ignore[index]
        with world.hub.channel("ada") as channel:
            assert channel.statistics().tasks_waiting_send == 1
        peer = world.peer().connect()
        await settled()
        peer.ack(1)
        await settled()
        assert publishers.done == [("a", 3)]
        assert world.hub.statistics().publishers_waiting == 0
        assert world.hub.stats()["delivery"]["events_refused"] == 1
        peer.ack(3)


async def test_publishers_get_their_turns_in_the_order_in_which_they_came() -> None:
    async with running(max_events_per_user=8) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        names = "abcdefgh"
        for name in names:
            await publishers.start(name)
        peer = world.peer(acks=True).connect()
        await settled()
        assert sorted(publishers.done) == [(name, 9 + n) for n, name in enumerate(names)]
        assert peer.seqs == list(range(1, 17))


async def test_nobody_overtakes_those_who_wait() -> None:
    async with running(max_events_per_user=2) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("large", payload="x" * 1000)
        await publishers.start("small")
        peer = world.peer().connect()
        await settled()
        peer.ack(1)  # room for one: it is given away in this very step
        with pytest.raises(trio.WouldBlock):
            world.hub.publish_nowait("ada", "agent_started")
        await settled()
        assert publishers.done == [("large", 3)]
        peer.ack(3)
        await settled()
        assert publishers.done == [("large", 3), ("small", 4)]
        peer.ack(4)


async def test_the_first_in_line_is_cancelled_and_the_next_one_takes_its_place() -> None:
    async with (
        running(max_bytes_per_user=2048, max_event_bytes=1500) as world,
        trio.open_nursery() as nursery,
    ):
        await world.hub.publish("ada", "agent_started", "x" * 1000)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("large", payload="x" * 1400)
        await publishers.start("small")
        assert publishers.done == []
        publishers.scopes["large"].cancel()
        await settled()
        assert publishers.done == [("small", 2)]
        assert world.hub.engine.books.accepted == 2


async def test_who_is_cancelled_together_with_the_room_was_accepted_or_was_not() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("first")
        await publishers.start("second")
        peer = world.peer().connect()
        await settled()
        peer.ack(1)
        publishers.scopes["first"].cancel()  # too late: its event is in the log
        await settled()
        assert publishers.done == [("first", 2)]
        assert world.hub.engine.room.line("ada") == 1
        publishers.scopes["second"].cancel()
        peer.ack(2)
        await settled()
        assert world.hub.engine.books.accepted == 2


async def test_the_end_of_a_session_makes_room() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        fast, slow = world.peer(acks=True).connect(), world.peer().connect()
        await _fill(world)
        await settled()
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        assert publishers.done == []  # confirmed, but owed to the one that is slow and awake
        slow.say(wire.BYE)
        await settled()
        assert publishers.done == [("a", 2)]
        assert (fast.seqs, slow.code) == ([1, 2], 1000)


async def test_what_is_confirmed_and_owed_only_to_a_parked_session_makes_room() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        world.peer(acks=True).connect()
        slow = world.peer().connect()
        await _fill(world)
        await settled()
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        assert publishers.done == []
        slow.die()
        await settled()
        assert publishers.done == [("a", 2)]
        gap, event = slow.again().kinds("gap", "event") or (None, None)
        del gap, event


async def test_what_is_confirmed_and_owed_only_to_a_stalled_session_makes_room() -> None:
    async with running(max_events_per_user=2) as world, trio.open_nursery() as nursery:
        world.peer(acks=True).connect()
        slow = world.peer().connect()
        await _fill(world)
        await settled()
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        assert publishers.done == []
        slow.room = 0
        await trio.sleep(0.6)  # a redelivery finds that its transport takes nothing
        assert [name for name, _ in publishers.done] == ["a"]


async def test_a_plain_client_makes_room_by_being_sent_to() -> None:
    async with running(max_events_per_user=2) as world, trio.open_nursery() as nursery:
        world.peer(plain=True).connect()
        await settled()
        for _ in range(2):
            world.hub.publish_nowait("ada", "agent_started")
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        assert publishers.done == [("a", 3)]


async def test_expiry_makes_room() -> None:
    async with running(max_events_per_user=1, cleanup_interval=30) as world, trio.open_nursery() as nursery:
        await world.hub.publish("ada", "agent_started", ttl=10)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        await trio.sleep(31)
        assert publishers.done == [("a", 2)]


async def test_room_in_all_is_given_to_whoever_waits() -> None:
    limits = {"max_events_per_user": 2, "max_events": 2}
    async with running(**limits) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("bob", user="bob")
        await publishers.start("eve", user="eve")
        assert publishers.done == []
        peer = world.peer().connect()
        await settled()
        peer.ack(1)
        await settled()
        assert publishers.done == [("bob", 1)]
        peer.ack(2)
        await settled()
        assert publishers.done == [("bob", 1), ("eve", 1)]


async def test_one_full_user_makes_no_other_wait() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("ada")
        await publishers.start("bob", user="bob")
        assert publishers.done == [("bob", 1)]
        publishers.scopes["ada"].cancel()


async def test_one_full_user_is_not_in_the_way_of_room_that_a_parked_tab_holds_back() -> None:
    async with running(max_events_per_user=2, max_events=3) as world, trio.open_nursery() as nursery:
        await _fill(world, "bob")
        peer, other = world.peer().connect(), world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        publishers = Publishers(world.hub, nursery)
        await publishers.start("bob", user="bob")  # first in line, and held up by his own events
        await publishers.start("eve", user="eve")
        assert publishers.done == []
        other.die()
        peer.ack(1)
        await settled()
        assert publishers.done == [("eve", 1)]
        publishers.scopes["bob"].cancel()


async def test_a_broadcast_that_waits_and_can_never_fit_is_refused_as_it_would_be_at_once() -> None:
    async with (
        running(max_events_per_user=1, max_bytes_per_user=1024) as world,
        trio.open_nursery() as nursery,
    ):
        publishers = Publishers(world.hub, nursery)
        for user in ("ada", "bob"):
            await _fill(world, user)
            await publishers.start(user, user=user)
        refusals = []

        async def broadcast() -> None:
            with pytest.raises(EventTooLarge) as caught:
                await world.hub.broadcast(["ada", "bob"], "agent_completed", "x" * 2000)
            refusals.append(caught.value)

        nursery.start_soon(broadcast)
        await settled()
        for user in ("ada", "bob"):
            world.peer(user, acks=True).connect()
        await settled()
        assert len(refusals) == 1
        assert sorted(publishers.done) == [("ada", 2), ("bob", 2)]


async def test_an_id_that_waits_twice_makes_one_event() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a", id="run")
        await publishers.start("again", id="run")
        await publishers.start("b", id="other")
        peer = world.peer(acks=True).connect()
        await settled()
        assert sorted(publishers.done) == [("a", 2), ("again", 2), ("b", 3)]
        assert peer.seqs == [1, 2, 3]
        assert world.hub.engine.books.duplicates == 1


async def test_what_was_accepted_already_need_not_wait() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await world.hub.publish("ada", "agent_started", id="run")
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        await publishers.start("again", id="run")
        assert publishers.done == [("again", 1)]
        assert world.hub.publish_nowait("ada", "agent_started", id="run").duplicate
        assert (await world.hub.broadcast(["ada"], "agent_started", id="run"))[0].duplicate
        publishers.scopes["a"].cancel()


async def test_a_drain_ends_the_wait() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await _fill(world)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("a")
        await publishers.start("b")

        async def broadcast() -> None:
            with pytest.raises(HubClosed):
                await world.hub.broadcast(["ada", "bob"], "agent_started")

        nursery.start_soon(broadcast)
        await settled()
        await world.hub.drain()
        await settled()
        assert sorted(publishers.refused) == ["a", "b"]
        assert world.hub.engine.room.waiting == 0


async def test_the_end_of_the_hub_ends_the_wait_of_tasks_outside() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ZeroDivisionError):
            async with open_hub() as hub:
                publishers = Publishers(hub, nursery)
                for _ in range(hub.config.max_events_per_user):
                    await hub.publish("ada", "agent_started")
                await publishers.start("a")
                raise ZeroDivisionError
        with trio.fail_after(1):
            await settled()
        assert publishers.refused == ["a"]


@pytest.mark.pure
async def test_what_goes_wrong_in_a_turn_is_raised_to_whose_turn_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        await _fill(world)
        caught: list[Exception] = []

        async def publish() -> None:
            try:
                await world.hub.publish("ada", "agent_started")
            except ZeroDivisionError as error:
                caught.append(error)

        nursery.start_soon(publish)
        await settled()
        publishers = Publishers(world.hub, nursery)
        await publishers.start("b")
        accept = world.hub.engine.buffer.accept
        faults = [ZeroDivisionError()]

        def fail(*args: Any) -> bool:
            if faults:
                raise faults.pop()
            return accept(*args)

        monkeypatch.setattr(world.hub.engine.buffer, "accept", fail)
        world.peer(acks=True).connect()
        await settled()
        assert len(caught) == 1
        assert publishers.done == [("b", 2)]


async def test_a_turn_that_has_something_to_tell_others_is_one_turn() -> None:
    limits = {"max_bytes_per_user": 2048, "max_event_bytes": 1500}
    async with running(**limits) as world, trio.open_nursery() as nursery:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started", "x" * 1000)
        await settled()
        low = await world.hub.publish("ada", "token", "x" * 900, priority=Priority.LOW)
        publishers = Publishers(world.hub, nursery)
        await publishers.start("large", payload="x" * 1400)
        assert publishers.done == []

        async def wait() -> None:
            with pytest.raises(ConfirmationTimeout):
                await low.confirmed()

        nursery.start_soon(wait)
        await settled()
        peer.ack(1)  # the room is made by evicting what `wait` waits for
        await settled()
        assert low.state == "evicted"
        assert publishers.done == [("large", 3)]
        assert world.hub.engine.books.accepted == 3
