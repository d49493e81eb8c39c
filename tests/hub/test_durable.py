"""A hub over a store: what is durable when, what the next hub goes on with, and what happens while the store fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import trio_ws
from trio_ws.config import Config
from trio_ws.core.records import Batch
from trio_ws.errors import StoreError, StoreUnavailable
from trio_ws.event import Event, Gap, Priority
from trio_ws.hub import Hub, Identity, open_hub
from trio_ws.hub.durability import PATIENCE, STALL
from trio_ws.store import MemoryStore

from .peers import Peer


class Store(MemoryStore):
    """A store whose commits can be held up, and can fail before or after they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.open_gate = trio.Event()
        self.open_gate.set()
        self.failing: str | None = None
        self.too_late = False
        self.batches: list[Batch] = []

    def hold(self) -> None:
        self.open_gate = trio.Event()

    def let_go(self) -> None:
        self.open_gate.set()

    async def commit(self, batch: Batch) -> None:
        await self.open_gate.wait()
        if self.failing is not None:
            if self.too_late:
                await super().commit(batch)
            raise StoreError(self.failing)
        self.batches.append(batch)
        await super().commit(batch)


@asynccontextmanager
async def life(store: MemoryStore, *, orderly: bool = False, **limits: Any) -> AsyncIterator[Hub]:
    """A hub over `store`, that dies at the end of the block unless it is to end in order."""
    with trio.CancelScope() as scope:
        opened = open_hub(Config(**limits), store=store, wall_clock=lambda: 1e9 + trio.current_time())
        async with opened as hub:
            yield hub
            assert hub.statistics().balanced
            if not orderly:
                scope.cancel()
                await trio.sleep_forever()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def connected(
    hub: Hub, user: str = "ada", before: Peer | None = None, start: str | None = None, **options: Any
) -> Peer:
    """A client of `user`, that goes on from where `before` was."""
    await hub.load(user, to_connect=True)
    ask: dict[str, Any] = {} if start is None else {"start": start}
    if before is not None:
        ask = {"session": before.welcome["session"], "epoch": before.welcome["epoch"], "seq": before.cursor}
    return Peer(hub, user, **options).connect(**ask)


def resumed(peer: Peer) -> bool:
    told: bool = peer.welcome["resumed"]
    return told


async def test_what_is_critical_is_durable_when_publish_returns() -> None:
    store = Store()
    async with life(store) as hub:
        for number in range(5):
            await hub.publish("ada", "alarm", number, priority=Priority.CRITICAL)
    async with life(store) as hub:
        assert hub.users() == ["ada"]
        peer = await connected(hub, acks=True)
        await until(lambda: len(peer.seqs) == 5)
        assert [event["payload"] for event in peer.kinds("event")] == [0, 1, 2, 3, 4]


async def test_a_client_goes_on_in_the_next_life_as_if_the_network_had_blinked() -> None:
    store = Store()
    async with life(store) as hub:
        first = await connected(hub, acks=True)
        for number in range(3):
            await hub.publish("ada", "agent_started", number)
        await until(lambda: first.attachment and first.attachment.session.acked == 3)
        await hub.publish("ada", "agent_completed", 3)
        await trio.sleep(3)
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 4)
        second = await connected(hub, before=first, acks=True)
        assert resumed(second)
        assert second.welcome["session"] == first.welcome["session"]
        assert second.welcome["epoch"] == first.welcome["epoch"]
        await until(lambda: second.seqs == [5])
        assert hub.stats()["pool"]["pool_hits"] == 1


async def test_nothing_critical_is_shown_before_it_is_durable() -> None:
    store = Store()
    async with life(store) as hub:
        peer = await connected(hub)
        await trio.sleep(3)
        store.hold()
        receipt = hub.publish_nowait("ada", "agent_started", 1)
        after = hub.publish_nowait("ada", "note", 2)
        await trio.sleep(0.5)
        assert peer.seqs == []
        store.let_go()
        with trio.fail_after(1):
            await receipt.committed()
            await after.committed()
        await until(lambda: peer.seqs == [1, 2])


async def test_what_may_be_lost_is_shown_at_once_and_its_seq_is_given_to_no_other() -> None:
    store = Store()
    async with life(store) as hub:
        first = await connected(hub, acks=True)
        await trio.sleep(3)
        hub.publish_nowait("ada", "note", 1)  # the first of its kind waits until seqs are reserved
        await until(lambda: first.seqs == [1])
        store.hold()
        for number in range(2, 6):
            hub.publish_nowait("ada", "note", number)
        await until(lambda: first.seqs == [1, 2, 3, 4, 5])
    store.let_go()
    async with life(store) as hub:
        second = await connected(hub, before=first, acks=True)
        assert resumed(second)
        receipt = await hub.publish("ada", "agent_started", 6)
        assert receipt.seq > 6
        await until(lambda: second.seqs == [receipt.seq])
        [gap] = second.kinds("gap")
        assert (gap["from"], gap["to"], gap["reason"], gap["lost"]) == (6, receipt.seq - 1, "reset", {})
    async with life(store) as hub:  # the gap stays what it was
        third = await connected(hub)
        await until(lambda: third.cursor == receipt.seq)
        assert ("reset", {}) in [(gap["reason"], gap["lost"]) for gap in third.kinds("gap")]


async def test_a_seq_that_only_a_publisher_was_told_may_be_given_again_after_a_crash() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)
        await trio.sleep(3)
        peer = await connected(hub)
        await until(lambda: peer.seqs == [1])
        store.hold()
        told = await hub.publish("ada", "note", "lost")
        assert told.seq == 2
        await trio.sleep(0.4)
        assert peer.seqs == [1], "nobody was shown it"
    store.let_go()
    async with life(store) as hub:
        assert (await hub.publish("ada", "agent_started", "another")).seq == 2


async def test_a_log_that_slept_in_one_process_tells_of_no_reset() -> None:
    store = Store()
    async with life(store, durability="none", max_events=8, max_events_per_user=6) as hub:
        first = await connected(hub, "user0", acks=True)
        for number in range(6):
            await hub.publish("user0", "note", number)
        await until(lambda: first.cursor == 6)
        await hub.publish("user0", "agent_started")
        await until(lambda: first.cursor == 7)
        first.die()
        await hub.publish("user0", "agent_completed")
        for user in range(1, 8):
            await hub.publish(f"user{user}", "agent_started")
            await hub.publish(f"user{user}", "agent_completed")
        assert "user0" in hub.engine.buffer.asleep
        assert store._logs["user0"].user.reserved > 8
        second = await connected(hub, "user0", before=first, acks=True)
        assert resumed(second)
        await until(lambda: second.cursor == 8)
        assert not second.kinds("gap")
        other = Peer(hub, "user0").connect(session="gone", epoch=second.welcome["epoch"], seq=0)
        await until(lambda: other.cursor == 8)
        assert {gap["reason"] for gap in other.kinds("gap")} <= {"settled"}
        assert (await hub.publish("user0", "agent_started")).seq == 9


@pytest.mark.parametrize("meanwhile", ["acked", "asleep"])
async def test_what_a_crash_has_cost_is_never_told_as_settled(meanwhile: str) -> None:
    store = Store()
    limits: dict[str, Any] = {"durability": "none", "max_events": 4, "max_events_per_user": 4}
    async with life(store, **limits) as hub:
        first = await connected(hub, "user0")
        for number in range(3):
            await hub.publish("user0", "note", number)
        await until(lambda: first.cursor == 3)
        await trio.sleep(3)  # no seqs are reserved any more
    async with life(store, **limits) as hub:
        if meanwhile == "acked":
            second = await connected(hub, "user0", acks=True)
            await hub.publish("user0", "agent_started")
            await until(lambda: second.attachment.session.acked == 4)
            await hub.committed()
        else:
            await hub.publish("user0", "agent_started")
            for user in range(1, 5):
                await hub.publish(f"user{user}", "agent_started")
            assert "user0" in hub.engine.buffer.asleep
            await hub.load("user0")
        assert await _resets(hub, first) == [(1, 3)]
    async with life(store, **limits) as hub:
        await hub.load("user0")
        assert await _resets(hub, first) == [(1, 3)]


async def _resets(hub: Hub, before: Peer) -> list[tuple[int, int]]:
    """What a client of the same user is told of as lost that had not acked anything, and is given all up to 4."""
    peer = Peer(hub, "user0").connect(session="gone", epoch=before.welcome["epoch"], seq=0)
    await until(lambda: peer.cursor == 4)
    return [(gap["from"], gap["to"]) for gap in peer.kinds("gap") if gap["reason"] == "reset"]


async def test_a_seq_that_was_shown_is_given_to_no_other_after_a_sleep_in_the_next_life() -> None:
    store = Store()
    limits: dict[str, Any] = {"durability": "none", "max_events": 4, "max_events_per_user": 4}
    async with life(store, **limits) as hub:
        first = await connected(hub, "user0")
        await hub.publish("user0", "agent_started")
        await hub.publish("user0", "note")
        await until(lambda: first.cursor == 2)
        store.hold()
        await hub.publish("user0", "note")
        await until(lambda: first.cursor == 3)
    store.let_go()
    async with life(store, **limits) as hub:
        await hub.load("user0")
        for user in range(1, 5):
            await hub.publish(f"user{user}", "agent_started")
        assert "user0" in hub.engine.buffer.asleep
        assert (await hub.publish("user0", "agent_completed")).seq > 3


async def test_a_log_at_rest_leaves_no_hole() -> None:
    store = Store()
    async with life(store) as hub:
        peer = await connected(hub, acks=True)
        for number in range(20):
            await hub.publish("ada", "note", number)
        await trio.sleep(3)
        assert peer.cursor == 20
    async with life(store) as hub:
        again = await connected(hub, before=peer)
        assert again.welcome["head"] == 20


async def test_a_hub_that_ends_in_order_leaves_everything() -> None:
    store = Store()
    async with life(store, orderly=True) as hub:
        peer = await connected(hub)
        for number in range(20):
            hub.publish_nowait("ada", "note", number)
    assert peer.code == 4503
    async with life(store) as hub:
        again = await connected(hub)
        await until(lambda: len(again.seqs) == 20)


async def test_an_idempotency_key_is_known_in_the_next_life() -> None:
    store = Store()
    async with life(store, event_ttl=10.0, cleanup_interval=1.0) as hub:
        peer = await connected(hub, acks=True)
        gone = await hub.publish("ada", "agent_started", id="gone")
        await until(lambda: gone.state == "settled")
        await trio.sleep(20)  # it has left the history
        held = await hub.publish("ada", "agent_completed", id="held")
        await until(lambda: held.state == "settled")
        await trio.sleep(0.1)
        assert peer.seqs == [1, 2]
    async with life(store) as hub:
        for id, seq in (("gone", 1), ("held", 2)):
            receipt = await hub.publish("ada", "agent_started", id=id)
            assert (receipt.duplicate, receipt.seq, receipt.state) == (True, seq, "settled")
            assert (await receipt.confirmed()).after == 0


async def test_a_confirmation_is_waited_for_anew_in_the_next_life() -> None:
    store = Store()
    async with life(store) as hub:
        first = await connected(hub)
        await hub.publish("ada", "agent_started", id="it")
        await until(lambda: first.seqs == [1])
    async with life(store) as hub:
        second = await connected(hub, before=first)
        assert second.seqs == []  # it had it
        again = await hub.publish("ada", "agent_started", id="it")
        assert again.state == "held"
        second.ack(1)
        assert (await again.confirmed(1)).late is False
        assert again.state == "settled"


@pytest.mark.parametrize("after", [10.0, 400.0])
async def test_a_session_waits_for_its_client_from_the_crash_on(after: float) -> None:
    store = Store()
    async with life(store) as hub:
        first = await connected(hub, acks=True)
        await hub.publish("ada", "agent_started")
        await until(lambda: first.attachment and first.attachment.session.acked == 1)
        await trio.sleep(1000)  # connected all the time
    async with life(store) as hub:
        await trio.sleep(after)
        second = await connected(hub, before=first)
        assert resumed(second) == (after < 180)
        assert (second.welcome["session"] == first.welcome["session"]) == (after < 180)


async def test_what_was_confirmed_stays_so_and_what_was_not_goes_to_the_next_session() -> None:
    store = Store()
    async with life(store) as hub:
        first = await connected(hub)
        for number in range(4):
            await hub.publish("ada", "agent_started", number)
        first.ack(2)
        await trio.sleep(3)
    async with life(store) as hub:
        await trio.sleep(100)
        pending = await connected(hub)
        await until(lambda: pending.seqs == [1, 2, 3, 4])
        pending.say(b'{"t":"bye"}')
        await trio.sleep(400)
        other = await connected(hub)
        await until(lambda: other.seqs == [3, 4])


async def test_of_what_only_others_than_critical_is_not_written_the_next_life_says_so() -> None:
    store = Store()
    async with life(store, durability="none") as hub:
        for number in range(3):
            await hub.publish("ada", "note", number)
        await hub.publish("ada", "agent_started", 3)
        await hub.publish("ada", "note", 4)
        await trio.sleep(3)
    async with life(store, durability="none") as hub:
        peer = await connected(hub)
        await until(lambda: peer.seqs == [4])
        gaps = [(gap["from"], gap["to"], gap["reason"]) for gap in peer.kinds("gap")]
        assert gaps == [(5, 5, "reset")]
        other = Peer(hub).connect(session="gone", epoch=peer.welcome["epoch"], seq=0)
        await until(lambda: other.cursor == 5)
        assert [(gap["from"], gap["to"], gap["reason"]) for gap in other.kinds("gap")] == [
            (1, 3, "reset"),
            (5, 5, "reset"),
        ]


async def test_where_all_is_durable_all_is_waited_for() -> None:
    store = Store()
    async with life(store, durability="all") as hub:
        peer = await connected(hub)
        await trio.sleep(3)
        store.hold()
        published = trio.Event()

        async def publish() -> None:
            await hub.publish("ada", "note", 1)
            published.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.sleep(0.5)
            assert not published.is_set()
            assert peer.seqs == []
            store.let_go()
            with trio.fail_after(1):
                await published.wait()
        await until(lambda: peer.seqs == [1])
    async with life(store) as hub:
        assert (await connected(hub)).welcome["head"] == 1


async def test_what_was_evicted_stays_accounted_for() -> None:
    store = Store()
    async with life(store, max_events_per_user=4) as hub:
        for number in range(10):
            await hub.publish("ada", "note", number)
        await hub.publish("ada", "agent_started", 10)
        await trio.sleep(3)
    async with life(store) as hub:
        peer = await connected(hub)
        await until(lambda: peer.cursor >= 11)
        assert peer.seqs == [8, 9, 10, 11]
        late = Peer(hub).connect(session="gone", epoch=peer.welcome["epoch"], seq=0)
        await until(lambda: late.cursor >= 11)
        [gap] = [gap for gap in late.kinds("gap") if gap["from"] == 1]
        assert (gap["to"], gap["reason"], gap["lost"]) == (7, "evicted", {"note": 7})


async def test_a_lone_publisher_pays_for_one_commit_an_event() -> None:
    store = Store()
    async with life(store) as hub:
        peer = await connected(hub, acks=True)
        await trio.sleep(3)
        before = len(store.batches)
        for number in range(20):
            receipt = await hub.publish("ada", "agent_started", number)
            await receipt.confirmed()
            await trio.sleep(0.04)
        assert len(store.batches) - before == 20
        await trio.sleep(0.1)
        assert len(store.batches) - before == 21, "the last ack goes by itself"
        assert store._logs["ada"].user.confirmed == 20
        assert peer.cursor == 20


async def test_commits_go_in_groups() -> None:
    store = Store()
    async with life(store) as hub:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(hub.publish, f"user{number % 50}", "agent_started", number)
        written = [len(batch.events) for batch in store.batches]
        assert sum(written) == 500
        assert max(written) <= 200
        assert len(written) < 20


async def test_of_one_large_log_each_commit_takes_a_part() -> None:
    store = Store()
    async with life(store, max_events_per_user=2000, max_events=2000) as hub:
        receipts = [hub.publish_nowait("ada", "agent_started", number) for number in range(1000)]
        for receipt in receipts:
            await receipt.committed()
        assert max(len(batch.events) for batch in store.batches) <= 200
        peer = await connected(hub)
        await until(lambda: peer.cursor == 1000)
    async with life(store, max_events_per_user=2000, max_events=2000) as hub:
        again = await connected(hub)
        await until(lambda: again.seqs == list(range(1, 1001)))


async def test_of_large_events_each_commit_takes_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_ws.hub.durability.MOST_BYTES", 10_000)
    store, users = Store(), ("ada", "bob", "eve")
    sizes = [*[1000] * 15, 50_000, 1000]
    async with life(store) as hub:
        receipts = [hub.publish_nowait(user, "agent_started", "x" * size) for size in sizes for user in users]
        for receipt in receipts:
            await receipt.committed()
    drawn = [[len(event.payload) for event in batch.events] for batch in store.batches]
    assert all(sum(batch[:-1]) < 10_000 for batch in drawn)
    assert len([batch for batch in drawn if batch]) <= 12
    for user in users:
        assert [len(e.payload) - 2 for b in store.batches for e in b.events if e.user == user] == sizes


@pytest.mark.parametrize("too_late", [False, True])
async def test_a_store_that_fails_is_told_and_recovers_by_itself(too_late: bool) -> None:
    store = Store()
    async with life(store) as hub:
        peer = await connected(hub)
        before = await hub.publish("ada", "agent_started", 1)
        await until(lambda: peer.seqs == [1])
        store.failing, store.too_late = "the disk is full", too_late
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await hub.publish("ada", "agent_started", 2, id="again")
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await hub.publish("ada", "agent_started", 3)
        assert hub.stats()["store"]["state"] == "failing"
        assert before.state == "sent"
        assert set(peer.seqs) == {1}
        sent = len(peer.seqs)
        peer.ack(1)
        assert before.state == "settled"  # what is durable is delivered and confirmed all the same
        note = await hub.publish("ada", "note", 4)  # of what may be lost nothing is refused
        assert peer.seqs[sent:] == []
        store.failing = None
        await until(lambda: hub.stats()["store"]["state"] == "ok")
        again = await hub.publish("ada", "agent_started", 2, id="again")
        assert (again.duplicate, again.seq) == (True, 2)
        await until(lambda: set(peer.seqs) == {1, 2, note.seq})
    async with life(store) as hub:
        late = await connected(hub)
        await until(lambda: late.seqs == [1, 2, 3])


async def test_a_stall_refuses_what_must_be_durable_and_passes() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)
        store.hold()
        begun = trio.current_time()
        with pytest.raises(StoreUnavailable, match="not durable after"):
            await hub.publish("ada", "agent_started", 2, id="two")
        assert trio.current_time() - begun == pytest.approx(PATIENCE)
        assert hub.stats()["store"]["state"] == "slow"
        with pytest.raises(StoreUnavailable, match=f"more than {STALL:g} s"):
            await hub.publish("bob", "agent_started", 1)
        await trio.sleep(5)
        store.let_go()
        await until(lambda: hub.stats()["store"]["state"] == "ok")
        assert (await hub.publish("ada", "agent_started", 2, id="two")).duplicate
        await hub.publish("bob", "agent_started", 1)


async def test_who_does_not_wait_is_told_to_come_back_where_a_log_is_to_be_read() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)
    async with life(store) as hub:
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("ada", "agent_started", 2)
        await trio.sleep(0.01)
        assert hub.publish_nowait("ada", "agent_started", 2).seq == 2
        assert hub.publish_nowait("bob", "agent_started", 1).seq == 1


async def test_a_log_is_read_once_however_many_ask_for_it() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)
    async with life(store) as hub:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(hub.publish, "ada", "agent_started", number)
        assert hub.statistics().events_accepted == 11


async def test_a_log_that_cannot_be_read_is_told_and_is_read_later() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)

    class Blind(Store):
        blind = True

        async def load(self, user: str) -> Any:
            if self.blind:
                raise StoreError("an I/O error")
            return await super().load(user)

    blind = Blind()
    blind._logs = store._logs
    async with life(blind) as hub:
        with pytest.raises(StoreUnavailable, match="can't be read: an I/O error"):
            await hub.publish("ada", "agent_started", 2)
        blind.blind = False
        assert (await hub.publish("ada", "agent_started", 2)).seq == 2


async def test_a_subscription_goes_on_from_what_the_store_has() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.publish("ada", "agent_started", 1)
    async with life(store) as hub:
        with hub.subscribe("ada") as subscription:
            [event] = await subscription.receive()
            assert isinstance(event, Event)
            assert event.payload == 1


async def test_a_broadcast_reaches_those_who_are_asleep() -> None:
    store = Store()
    async with life(store) as hub:
        for user in ("ada", "bob"):
            await hub.publish(user, "agent_started", 1)
    async with life(store) as hub:
        receipts = await hub.broadcast("*", "agent_completed", 2)
        assert [(receipt.user, receipt.seq) for receipt in receipts] == [("ada", 2), ("bob", 2)]


async def test_what_has_expired_while_nobody_was_there_goes_and_a_user_of_whom_nothing_is_left_too() -> None:
    store = Store()
    limits: dict[str, Any] = {"cleanup_interval": 1.0}
    async with life(store, **limits) as hub:
        for number in range(10):
            await hub.publish(f"user{number}", "note", number)
        await hub.publish("ada", "agent_started", 1)
        await trio.sleep(3)
    async with life(store, **limits) as hub:
        assert len(hub.users()) == 11
        await trio.sleep(1000)
        assert hub.users() == ["ada"]
        assert hub.statistics().events_expired == 10
    assert list(store._logs) == ["ada"]


@pytest.mark.parametrize("when_it_died", ["parked", "connected"])
async def test_a_session_whose_client_never_comes_back_expires_in_the_store(when_it_died: str) -> None:
    store = Store()
    limits: dict[str, Any] = {"cleanup_interval": 1.0}
    async with life(store, **limits) as hub:
        one, other = await connected(hub, acks=True), await connected(hub)
        receipt = await hub.publish("ada", "agent_started")
        await until(lambda: one.attachment.session.acked == 1 and other.seqs == [1])
        one.say(b'{"t":"bye"}')
        if when_it_died == "parked":
            other.die()
        await trio.sleep(3)
        assert receipt.state == "confirmed"  # it never expires, and is owed to a session that does
    async with life(store, **limits) as hub:
        await trio.sleep(170)
        assert hub.users() == ["ada"]
        await trio.sleep(600)
        assert hub.users() == []
    assert not store._logs


async def test_a_log_that_sleeps_is_woken_when_a_session_of_it_expires_and_when_a_run_is_forgotten() -> None:
    store = Store()
    limits: dict[str, Any] = {"max_events": 4, "max_events_per_user": 4, "cleanup_interval": 1.0}
    async with life(store, **limits) as hub:
        peer = await connected(hub)
        run = await hub.open_run("ada", "r")
        await run.close()
        peer.die()
        await trio.sleep(3)
        for user in range(4):
            await hub.publish(f"user{user}", "agent_started")
        assert "ada" in hub.engine.buffer.asleep
        await hub.committed()
        assert store._logs["ada"].sessions
        assert store._logs["ada"].runs
        loaded = hub.loader.loaded
        await trio.sleep(400)
        assert not store._logs["ada"].sessions
        assert not store._logs["ada"].runs
        assert len(store._logs["ada"].events) == 2
        assert hub.loader.loaded - loaded < 10  # when it is time, and not at each cleanup


async def test_a_snapshot_does_not_end_amid_deltas_that_were_joined_while_some_were_not_durable() -> None:
    store = Store()
    async with life(store, durability="all", max_events_per_user=3) as hub:
        run = await hub.open_run("ada", "r")
        store.hold()
        run.delta_nowait("a")  # is in the commit that is under way
        await trio.sleep(0.1)
        for text in "bc":
            run.delta_nowait(text)  # for "c" room is made: "a" and "b" are joined
        box = hub.engine.buffer.mailboxes["ada"]
        assert [(entry.first, entry.seq) for entry in box.entries.values()] == [(1, 1), (2, 3), (4, 4)]
        first = store.open_gate
        store.hold()
        first.set()
        await until(lambda: box.safe == 2)
        peer = await connected(hub, start="snapshot")
        await trio.sleep(0.1)
        assert not peer.kinds("snapshot")
        store.let_go()
        await until(lambda: peer.cursor == 4)
        (snapshot,) = peer.kinds("snapshot")
        assert (snapshot["seq"], snapshot["payload"]["text"]) == (4, "abc")


async def test_who_stays_connected_is_not_looked_for_in_the_store() -> None:
    store = Store()
    async with life(store, cleanup_interval=1.0) as hub:
        await connected(hub, acks=True)
        await hub.publish("ada", "agent_started")
        for _ in range(5):
            await trio.sleep(100)
            now = 1e9 + trio.current_time()
            assert await store.due(now - 3, 1) == []
            assert await store.due(now + 180, 1) == ["ada"]


async def test_a_critical_event_lives_until_it_is_confirmed_unless_a_limit_is_set() -> None:
    store = Store()
    async with life(store, cleanup_interval=3600.0, alert_window=86400.0) as hub:
        await hub.publish("ada", "agent_started", 1)
        await trio.sleep(3 * 86400)  # longer than in memory
        peer = await connected(hub)
        await until(lambda: peer.seqs == [1])


async def test_gaps_of_a_subscription_are_told_in_the_next_life() -> None:
    store = Store()
    async with life(store, max_events_per_user=2) as hub:
        for number in range(5):
            await hub.publish("ada", "note", number, key="k")
        await trio.sleep(3)
    async with life(store) as hub:
        with hub.subscribe("ada") as subscription:
            batch = await subscription.receive()
        assert [item.payload if isinstance(item, Event) else item.reason for item in batch] == [4]
        assert not any(isinstance(item, Gap) for item in batch)


async def test_logs_of_users_who_are_not_there_make_room_in_memory_and_come_back() -> None:
    store = Store()
    async with life(store, max_events=10, max_events_per_user=5) as hub:
        receipts = {}
        for user in range(20):
            for number in range(5):
                receipts[user, number] = await hub.publish(
                    f"user{user}", "agent_started", number, id=f"{number}"
                )
        stats = hub.stats()
        assert stats["buffer"]["events"] <= 10
        assert stats["delivery"]["events_held"] == 100
        assert stats["store"]["events_asleep"] == 100 - stats["buffer"]["events"]
        assert receipts[0, 0].state == "held"
        for user in range(20):
            peer = await connected(hub, f"user{user}", acks=True)
            await until(lambda peer=peer: len(peer.seqs) == 5)
            await until(lambda peer=peer: peer.attachment.session.acked == 5)
            peer.die()
            assert hub.stats()["buffer"]["events"] <= 10
        assert (await hub.publish("user3", "agent_started", 1, id="1")).duplicate
        await hub.load("user0")
        assert receipts[0, 0].state == "settled"
        assert (await receipts[0, 0].confirmed(1)).late is False
        stats = hub.stats()["delivery"]
        assert (stats["events_accepted"], stats["events_settled"], stats["events_held"]) == (100, 100, 0)
        assert hub.statistics().balanced


async def test_a_log_with_what_is_not_written_stays_in_memory() -> None:
    store = Store()
    async with life(store, durability="none", max_events=4, max_events_per_user=3) as hub:
        await hub.publish("user0", "note")
        await hub.publish("user0", "agent_started")
        for user in range(1, 3):
            await hub.publish(f"user{user}", "agent_started")
        await hub.publish("user3", "agent_started")  # for which the note makes room
        await hub.publish("user4", "agent_started")
        assert hub.statistics().events_evicted == 1
        assert hub.statistics().events_held == 5
        assert hub.engine.buffer.asleep


async def test_a_log_that_has_come_back_is_not_written_over_by_what_it_was_before_it_slept() -> None:
    store = Store()
    limits: dict[str, Any] = {"durability": "none", "max_events": 4, "max_events_per_user": 3}
    async with life(store, **limits) as hub:
        await hub.publish("user0", "note")  # has seqs reserved, for another second
        await hub.publish("user0", "agent_started")
        for user in range(1, 5):
            await hub.publish(f"user{user}", "agent_started")
        assert "user0" in hub.engine.buffer.asleep
        last = await hub.publish("user0", "agent_completed")
        await trio.sleep(3)
        assert store._logs["user0"].user.head == last.seq
    async with life(store, **limits) as hub:
        following = await hub.publish("user0", "agent_started")
        assert (following.epoch, following.seq) == (last.epoch, last.seq + 1)


async def test_a_log_with_a_seq_that_is_not_written_stays_in_memory() -> None:
    store = Store()
    async with life(store, durability="none", max_events=4, max_events_per_user=3) as hub:
        for user in range(3):
            await hub.publish(f"user{user}", "agent_started")
        await trio.sleep(3)
        note = hub.publish_nowait("user0", "note")
        hub.publish_nowait("user1", "agent_started")  # for which the note makes room
        hub.publish_nowait("user3", "agent_started")
        assert note.state == "evicted"
        assert list(hub.engine.buffer.asleep) == ["user2"]
        assert (await hub.publish("user0", "agent_started")).seq > note.seq


async def test_a_key_of_what_was_never_written_is_known_when_the_log_comes_back() -> None:
    store = Store()
    async with life(store, durability="none", max_events=4, max_events_per_user=3) as hub:
        await hub.publish("user0", "note", key="a", id="once")
        await hub.publish("user0", "note", key="a")
        for _ in range(3):
            await hub.publish("user0", "agent_started")
        for user in range(1, 4):
            await hub.publish(f"user{user}", "agent_started")
        assert "user0" in hub.engine.buffer.asleep
        with trio.fail_after(10):
            assert (await hub.publish("user0", "note", id="once")).duplicate


async def test_a_log_whose_sessions_have_sent_messages_stays_in_memory_with_them() -> None:
    async def handle(user: str, message: trio_ws.Message) -> None:
        handled.append(message.id)

    handled: list[str] = []
    async with life(Store(), max_events=4, max_events_per_user=2) as hub:
        peer = Peer(hub, "user0").connect(on_message=handle)
        peer.say(b'{"t":"message","id":"m","type":"say","payload":1}')
        await until(lambda: handled)
        peer.die()
        for user in range(4):
            await hub.publish(f"user{user}", "agent_started")
        await trio.sleep(0.1)
        await hub.publish("user4", "agent_started")
        assert list(hub.engine.buffer.asleep) == ["user1", "user2", "user3"]


async def test_who_was_revoked_stays_so_in_the_next_life() -> None:
    store = Store()
    async with life(store) as hub:
        await hub.committed()  # nothing to wait for
        assert hub.end_sessions("ada", revoke=3600) == 0
        store.hold()
        assert hub.is_revoked(Identity("ada"))  # at once, but not beyond this life
    store.let_go()
    async with life(store) as hub:
        assert not hub.is_revoked(Identity("ada"))
        since = 1e9 + trio.current_time()
        hub.end_sessions("ada", revoke=3600)
        hub.end_sessions("bob", revoke=60)
        with trio.fail_after(1):
            await hub.committed()
    async with life(store) as hub:
        for user, issued, covered in (("ada", since, True), ("ada", since + 1, False), ("eve", None, False)):
            assert hub.is_revoked(Identity(user, None, issued)) == covered
        await trio.sleep(100)
        assert hub.is_revoked(Identity("ada"))
        assert not hub.is_revoked(Identity("bob"))


async def test_who_revokes_while_the_store_fails_is_told_that_it_may_not_last() -> None:
    store = Store()
    async with life(store) as hub:
        store.failing = "the disk is full"
        hub.end_sessions("ada", revoke=3600)
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await hub.committed()
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await hub.committed()
        assert hub.is_revoked(Identity("ada"))
        store.failing = None
        await until(lambda: hub.stats()["store"]["state"] == "ok")
        await hub.committed()
    async with life(store) as hub:
        assert hub.is_revoked(Identity("ada"))


async def test_what_waits_for_users_who_have_not_come_yet_is_counted() -> None:
    store = Store()
    async with life(store) as hub:
        for user in range(5):
            for _ in range(3):
                await hub.publish(f"user{user}", "agent_started")
        peer = await connected(hub, "user0", acks=True)
        await until(lambda: peer.attachment and peer.attachment.session.acked == 3)
        await trio.sleep(1)
    async with life(store) as hub:
        await trio.sleep(1)
        assert hub.stats()["store"]["events_unread"] == 12
        await hub.load("user0")
        await hub.load("user1")
        await hub.publish("user2", "agent_started")
        stats = hub.stats()
        assert stats["store"]["events_unread"] == 6
        assert (stats["delivery"]["events_held"], stats["store"]["users_asleep"]) == (7, 2)


async def test_a_confirmation_can_be_waited_for_while_the_log_is_asleep() -> None:
    store = Store()
    async with life(store, max_events=4, max_events_per_user=2) as hub:
        first = await hub.publish("user0", "agent_started")
        for user in range(1, 5):
            for _ in range(2):
                await hub.publish(f"user{user}", "agent_started")
        assert "user0" in hub.engine.buffer.asleep
        with pytest.raises(trio_ws.ConfirmationTimeout, match="held"):
            await first.confirmed(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.confirmed, 60)
            await trio.sleep(1)
            await connected(hub, "user0", acks=True)
        assert first.state == "settled"


async def test_where_all_who_are_there_fill_memory_another_who_comes_is_given_what_waits() -> None:
    store = Store()
    async with life(store, max_events=4, max_events_per_user=2, max_stored_events_per_user=0) as hub:
        await hub.publish("user2", "agent_started")
        for user in range(2):
            await connected(hub, f"user{user}")
            for _ in range(2):
                await hub.publish(f"user{user}", "agent_started")
        assert "user2" in hub.engine.buffer.asleep
        with pytest.raises(StoreUnavailable, match="who are connected"):
            await hub.publish("user2", "agent_started")
        peer = await connected(hub, "user2")
        await until(lambda: peer.seqs == [1])
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("user3", "agent_started")


async def test_memory_is_back_within_its_bound_soon_after_those_who_had_it_beyond_have_gone() -> None:
    limits: dict[str, Any] = {"max_events": 4, "max_events_per_user": 2, "max_stored_events_per_user": 0}
    async with life(Store(), cleanup_interval=1, **limits) as hub:
        await hub.publish("user2", "agent_started")
        peers = [await connected(hub, f"user{user}") for user in range(2)]
        for user in range(4):
            await hub.publish(f"user{user % 2}", "agent_started")
        peers.append(await connected(hub, "user2"))
        assert hub.stats()["buffer"]["events"] == 5
        await trio.sleep(2)
        assert hub.stats()["buffer"]["events"] == 5, "all of it waits for somebody who is there"
        for peer in peers:
            peer.die()
        await trio.sleep(2)
        assert hub.stats()["buffer"]["events"] <= 4
        assert hub.stats()["delivery"]["events_held"] == 5
