"""Logs that become another process's while this one has them: nothing of them is shown, told or written any more."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws.core.pool import Ask, Refused
from trio_ws.core.records import Batch
from trio_ws.errors import ConfirmationTimeout, OwnedElsewhere, StoreUnavailable
from trio_ws.event import Priority
from trio_ws.hub import Hub, Identity, Receipt
from trio_ws.store import Fenced

from .peers import Peer
from .test_durable import Store, connected, life

CRITICAL = Priority.CRITICAL


class Shared(Store):
    """A store in which some users are another process's."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[str] = set()

    async def commit(self, batch: Batch) -> None:
        users = {record.user for record in batch.users}
        await super().commit(batch)
        if fenced := users & self.taken:
            raise Fenced(fenced)


def check_gone(hub: Hub, user: str) -> None:
    assert hub.statistics().balanced
    assert user not in hub.users()
    assert not any(attachment.session.box.user == user for attachment in hub.engine.attachments)
    assert hub.engine.pool.connected == len(hub.engine.attachments)


async def test_who_is_fenced_is_dropped_and_all_else_is_committed() -> None:
    store = Shared()
    async with life(store) as hub:
        ada, bob = await connected(hub), await connected(hub, "bob")
        store.taken = {"ada"}
        async with trio.open_nursery() as nursery:
            with pytest.raises(StoreUnavailable, match="another node"):
                nursery.start_soon(hub.publish, "bob", "alarm", 2)
                await hub.publish("ada", "alarm", 1, priority=CRITICAL)
        check_gone(hub, "ada")
        assert ada.told is not None
        assert (ada.code, ada.told[1]) == (4503, "another node has the user's events")
        assert ada.told[2] is not None
        assert 0 < ada.told[2] < 1
        assert ada.seqs == []
        await trio.sleep(0.2)
        assert bob.seqs == [1]
        assert bob.told is None
        assert hub.statistics().events_moved == 1


async def test_what_waits_in_this_process_is_told() -> None:
    async with life(Store(), max_events_per_user=2, max_stored_events_per_user=0) as hub:
        peer = await connected(hub)
        receipts = [await hub.publish("ada", "alarm", n, priority=CRITICAL) for n in range(2)]
        outcomes: list[str] = []

        async def wait_for_room() -> None:
            with pytest.raises(OwnedElsewhere):
                await hub.publish("ada", "alarm", 3, priority=CRITICAL)
            outcomes.append("room")

        async def wait_for_client(receipt: Receipt) -> None:
            with pytest.raises(ConfirmationTimeout) as caught:
                await receipt.confirmed()
            outcomes.append(caught.value.state)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_room)
            for receipt in receipts:
                nursery.start_soon(wait_for_client, receipt)
            await wait_all_tasks_blocked()
            assert hub.engine.room.waiting == 1
            began = trio.current_time()
            hub.drop("ada")
        assert trio.current_time() == began
        assert sorted(outcomes) == ["moved", "moved", "room"]
        assert [receipt.state for receipt in receipts] == ["moved", "moved"]
        check_gone(hub, "ada")
        books = hub.engine.books
        assert (books.events, books.bytes, books.firm_events, books.firm_bytes) == (0, 0, 0, 0)
        peer.ack(2)  # it is fenced off
        await trio.sleep(30)
        assert hub.engine.confirmations.timed_out == 0


async def test_what_was_confirmed_before_stays_so() -> None:
    async with life(Store()) as hub:
        await connected(hub, acks=True)
        receipt = await hub.publish("ada", "alarm", priority=CRITICAL)
        await receipt.confirmed()
        hub.drop("ada")
        assert receipt.state == "settled"
        await receipt.confirmed()


async def test_nothing_more_is_written_of_who_was_dropped() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "alarm", 1, priority=CRITICAL)
        store.failing = "away"
        hub.publish_nowait("ada", "alarm", 2, priority=CRITICAL)
        hub.publish_nowait("bob", "alarm", 1)
        await trio.sleep(1)
        before = len(store.batches)
        hub.drop("ada")
        store.failing = None
        await trio.sleep(5)
        written = store.batches[before:]
        assert written
        assert {record.user for batch in written for record in batch.users} == {"bob"}
        assert {event.user for batch in written for event in batch.events} == {"bob"}


async def test_a_try_that_is_under_way_can_be_waited_for() -> None:
    store = Store()
    async with life(store) as hub:
        durability = hub.engine.durability
        assert durability is not None
        store.hold()
        hub.publish_nowait("ada", "alarm", priority=CRITICAL)
        await trio.sleep(0.1)
        hub.drop("ada")
        with trio.move_on_after(5) as patience:
            await durability.untouched("ada")
        assert patience.cancelled_caught
        await durability.untouched("bob")
        store.let_go()
        await durability.untouched("ada")


async def test_a_log_that_is_dropped_while_it_is_read_does_not_come_in() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "alarm", priority=CRITICAL)

    class Slow(Store):
        async def load(self, user: str) -> object:  # type: ignore[override]
            kept = await store.load(user)
            await trio.sleep(1)
            return kept

        async def open(self) -> object:  # type: ignore[override]
            return await store.open()

    async with life(Slow()) as hub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.load, "ada")
            await trio.sleep(0.5)
            hub.drop("ada")
        assert hub.users() == []
        check_gone(hub, "ada")


async def test_a_log_that_is_asleep_can_be_dropped() -> None:
    async with life(Store(), max_events=4, max_events_per_user=2) as hub:
        for user in range(4):
            await hub.publish(f"user{user}", "alarm", priority=CRITICAL)
            await hub.publish(f"user{user}", "alarm", priority=CRITICAL)
        asleep = list(hub.engine.buffer.asleep)
        assert asleep
        held = hub.statistics().events_held
        hub.drop(asleep[0])
        assert hub.statistics().balanced
        assert hub.statistics().events_held == held - 2
        assert hub.statistics().events_moved == 2
        assert asleep[0] not in hub.users()


async def test_a_log_with_a_rest_can_be_dropped() -> None:
    store = Store()
    async with life(store, max_events_per_user=4, max_stored_events_per_user=100) as hub:
        receipts = [await hub.publish("ada", "alarm", n, priority=CRITICAL) for n in range(8)]
        outcomes: list[str] = []

        async def wait(receipt: Receipt) -> None:
            with pytest.raises(ConfirmationTimeout) as caught:
                await receipt.confirmed()
            outcomes.append(caught.value.state)

        async with trio.open_nursery() as nursery:
            for receipt in receipts:
                nursery.start_soon(wait, receipt)
            await wait_all_tasks_blocked()
            store.hold()
            hub.publish_nowait("ada", "alarm", 9, priority=CRITICAL)
            await trio.sleep(0.1)
            hub.publish_nowait("ada", "alarm", 10, priority=CRITICAL)
            hub.drop("ada")
            store.let_go()
        await trio.sleep(1)
        assert outcomes == ["moved"] * 8
        books = hub.engine.books
        assert books.balanced
        assert (books.spilled, books.landing_events, books.landing_bytes, books.held) == (0, 0, 0, 0)


async def test_while_it_is_suspended_nothing_is_sent_and_nothing_accepted_but_connections_stay() -> None:
    async with life(Store()) as hub:
        peer = await connected(hub)
        await hub.publish("ada", "alarm", 1, priority=CRITICAL)
        await wait_all_tasks_blocked()
        peer.ack(1)
        hub.publish_nowait("ada", "chat", 2)
        hub.suspend()
        for options in ({}, {"priority": CRITICAL}):
            with pytest.raises(StoreUnavailable, match="no touch"):
                await hub.publish("ada", "chat", 3, **options)
        stranger = Peer(hub, "bob")
        refused = hub.attach(Identity("bob"), Ask(), stranger)
        assert isinstance(refused, Refused)
        assert (refused.code.code, refused.counted) == (4503, "store")
        await trio.sleep(20)
        assert peer.seqs == [1]
        assert len(peer.kinds("ping")) > 3
        assert peer.told is None
        assert peer.dropped_at is None
        assert hub.stats()["store"]["state"] == "suspended"
        hub.resume()
        await wait_all_tasks_blocked()
        assert peer.seqs == [1, 2]
        await hub.publish("ada", "chat", 3)


async def test_redelivery_waits_too_and_goes_on() -> None:
    async with life(Store()) as hub:
        peer = await connected(hub)
        await hub.publish("ada", "alarm", 1, priority=CRITICAL)
        hub.suspend()
        await trio.sleep(60)
        assert peer.seqs in ([], [1])
        sent = len(peer.seqs)
        hub.resume()
        await trio.sleep(1)
        assert len(peer.seqs) > sent
        assert peer.told is None


async def test_a_run_whose_block_is_here_is_lost() -> None:
    async with life(Store()) as hub:
        with pytest.raises(OwnedElsewhere):
            async with hub.run("ada", "r1") as run:
                question = await run.open_question("Go on?")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run.wait_cancelling)
                    await wait_all_tasks_blocked()
                    hub.drop("ada")
                assert run.outcome == "lost"
                await run.wait_closed(question)
        assert hub.engine.buffer.runs.open == 0
        assert not hub.desk.handles


async def test_a_failing_store_says_so_again_when_it_is_not_suspended_any_more() -> None:
    store = Store()
    async with life(store) as hub:
        store.failing = "away"
        hub.publish_nowait("ada", "alarm", priority=CRITICAL)
        await trio.sleep(1)
        hub.suspend()
        hub.resume()
        with pytest.raises(StoreUnavailable, match="away"):
            await hub.publish("ada", "alarm", priority=CRITICAL)
        store.failing = None


async def test_what_comes_after_a_drop_is_committed_at_once() -> None:
    async with life(Store()) as hub:
        hub.publish_nowait("ada", "alarm", 1, priority=CRITICAL)
        hub.drop("ada")  # before a commit has begun, and it is all that there was to write
        await trio.sleep(0.1)
        began = trio.current_time()
        await hub.publish("bob", "alarm", 2, priority=CRITICAL)
        assert trio.current_time() - began < 0.1
