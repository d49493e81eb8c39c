"""Nodes over one place: each log has one owner, whoever is asked, and whatever becomes of the nodes."""

from __future__ import annotations

from random import Random

import pytest
import trio

from tests.hub.peers import Peer
from trio_ws.core.records import Kept
from trio_ws.errors import OwnedElsewhere, StoreError, StoreUnavailable
from trio_ws.event import Priority

from .world import Life, running

CRITICAL = Priority.CRITICAL


async def connect(life: Life, user: str = "ada", before: Peer | None = None, **options: object) -> Peer:
    """A client of a user whose log is at this node, or comes there."""
    assert await life.hub.place(user, to_connect=True) is None
    ask: dict[str, object] = {}
    if before is not None:
        ask = {"session": before.welcome["session"], "epoch": before.welcome["epoch"], "seq": before.cursor}
    return Peer(life.hub, user, **options).connect(**ask)  # type: ignore[arg-type]


def payloads(peer: Peer) -> list[object]:
    return [frame["payload"] for frame in peer.kinds("event") if not frame.get("retry")]


async def test_what_is_published_at_any_node_is_in_one_log() -> None:
    async with running("a", "b", "c") as (nodes, (a, b, c)):
        receipts = [
            await life.hub.publish("ada", "alarm", number, priority=CRITICAL)
            for number, life in enumerate((a, b, c, a, b, c))
        ]
        assert [receipt.seq for receipt in receipts] == [1, 2, 3, 4, 5, 6]
        assert len({receipt.epoch for receipt in receipts}) == 1
        assert len({receipt.id for receipt in receipts}) == 6
        assert not any(receipt.duplicate for receipt in receipts)
        nodes.check()
        assert list(a.hub.ownership.owned) == ["ada"]
        assert b.hub.cluster.stats()["forwarded"] == 2


async def test_a_confirmation_comes_to_the_node_where_it_is_waited_for() -> None:
    async with running("a", "b") as (_, (a, b)):
        peer = await connect(a)
        receipt = await b.hub.publish("ada", "alarm", priority=CRITICAL)
        async with trio.open_nursery() as nursery:

            async def ack() -> None:
                await trio.sleep(1)
                peer.ack(1)

            nursery.start_soon(ack)
            confirmation = await receipt.confirmed()
        assert 0.9 < confirmation.after < 1.1
        assert receipt.state == "confirmed"
        again = await b.hub.publish("ada", "alarm", priority=CRITICAL, id="x")
        assert (await b.hub.publish("ada", "alarm", priority=CRITICAL, id="x")).duplicate
        assert not again.duplicate


async def test_an_id_makes_one_event_at_whichever_nodes() -> None:
    async with running("a", "b") as (_, (a, b)):
        receipts = [
            await life.hub.publish("ada", "alarm", priority=CRITICAL, id="x") for life in (a, b, b, a)
        ]
        assert [receipt.seq for receipt in receipts] == [1, 1, 1, 1]
        assert [receipt.duplicate for receipt in receipts] == [False, True, True, True]


async def test_a_log_comes_to_who_connects_where_nobody_else_is_connected() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        receipt = await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        peer = await connect(b, acks=True)
        await receipt.confirmed()
        assert payloads(peer) == [1]
        assert a.hub.users() == []
        assert peer.welcome["epoch"] == receipt.epoch
        peer.die()
        await trio.sleep(1)
        other = await connect(a, before=peer)
        assert other.welcome["resumed"] is True
        nodes.check()


async def test_a_log_stays_for_who_is_just_about_to_connect() -> None:
    async with running("a", "b") as (_, (a, b)):
        assert await a.hub.place("ada", to_connect=True) is None
        elsewhere = await b.hub.place("ada", to_connect=True)
        assert elsewhere is not None
        await trio.sleep(1)
        assert await b.hub.place("ada", to_connect=True) is None


async def test_a_log_stays_where_its_user_is_connected() -> None:
    async with running("a", "b") as (_, (a, b)):
        await connect(a)
        elsewhere = await b.hub.place("ada", to_connect=True)
        assert elsewhere is not None
        assert elsewhere.node == "a"
        with pytest.raises(OwnedElsewhere) as caught:
            await b.hub.load("ada")
        assert caught.value.node == "a"
        with pytest.raises(OwnedElsewhere):
            async with b.hub.run("ada"):
                pytest.fail("it is elsewhere")


async def test_a_node_that_dies_is_taken_over_and_its_client_goes_on() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        first = await connect(a, acks=True)
        for number in range(3):
            await a.hub.publish("ada", "alarm", number, priority=CRITICAL)
        await trio.sleep(1)
        await a.hub.publish("ada", "alarm", 3, priority=CRITICAL)
        await a.kill()
        began = trio.current_time()
        second = await connect(b, before=first, acks=True)
        assert trio.current_time() - began < 2.5
        assert second.welcome["resumed"] is True
        await b.hub.publish("ada", "alarm", 4, priority=CRITICAL)
        await trio.sleep(0.1)
        assert sorted({*payloads(first), *payloads(second)}) == [0, 1, 2, 3, 4]
        assert not first.faults
        assert not second.faults
        assert b.hub.cluster.stats()["take_overs"] == 1
        nodes.check()


async def test_a_node_that_is_cut_off_is_suspended_and_fenced_and_comes_back() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        first = await connect(a, acks=True)
        await connect(a, "bob")
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        await a.hub.publish("bob", "alarm", 1, priority=CRITICAL)
        await trio.sleep(1)
        a.store.away = True
        await trio.sleep(2)
        assert a.hub.cluster.suspended
        with pytest.raises(StoreUnavailable):
            await a.hub.publish("ada", "alarm", 2)
        with pytest.raises(StoreUnavailable):
            await a.hub.publish("carol", "alarm", 2)
        second = await connect(b, before=first, acks=True)
        await b.hub.publish("ada", "alarm", 3, priority=CRITICAL)
        assert first.told is None
        a.store.away = False
        await trio.sleep(1)
        assert not a.hub.cluster.suspended
        assert first.code == 4503
        assert payloads(first) == [1]
        assert payloads(second) == [3]
        assert "ada" not in a.hub.ownership.owned
        nodes.check()
        await a.hub.publish("ada", "alarm", 4, priority=CRITICAL)
        await trio.sleep(0.1)
        assert payloads(second) == [3, 4]


async def test_a_store_that_is_away_for_all_costs_no_connection() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        ada, bob = await connect(a, acks=True), await connect(b, "bob", acks=True)
        a.store.away = b.store.away = True
        await trio.sleep(10)
        assert a.hub.cluster.suspended
        assert b.hub.cluster.suspended
        a.store.away = b.store.away = False
        await trio.sleep(3)
        await a.hub.publish("bob", "alarm", 1, priority=CRITICAL)
        await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        await trio.sleep(0.2)
        for peer in (ada, bob):
            assert peer.told is None
            assert payloads(peer) == [1]
        nodes.check()


async def test_a_node_that_drains_hands_over_all_it_has() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        peer = await connect(a, acks=True)
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        await a.hub.publish("bob", "alarm", 1, priority=CRITICAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.drain)
            began = trio.current_time()
            receipt = await b.hub.publish("bob", "alarm", 2, priority=CRITICAL)
        assert receipt.seq == 2
        assert peer.code == 4503
        assert nodes.place.data.owners.keys() == {"bob"}
        assert trio.current_time() - began < 3
        assert [node.node for node in b.hub.cluster.nodes()] == ["b"] or nodes.place.leases.keys() == {"b"}
        second = await connect(b, before=peer)
        assert second.welcome["resumed"] is True


async def test_runs_of_a_dead_node_are_adopted_and_end() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await a.hub.open_run("ada", "leased", lease=5)
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                async with a.hub.run("bob", "block"):
                    await trio.sleep_forever()

            with pytest.raises(ExceptionGroup):
                async with trio.open_nursery() as inner:
                    inner.start_soon(work)
                    await trio.sleep(0.1)
                    await a.kill()
                    raise ExceptionGroup("", [ValueError()])
            nursery.cancel_scope.cancel()
        await trio.sleep(5)
        assert {"ada", "bob"} <= b.hub.ownership.owned.keys()
        (run,) = await b.hub.runs("bob")
        assert run["status"] == "lost"
        await trio.sleep(6)
        (run,) = await b.hub.runs("ada")
        assert run["status"] == "lost"
        nodes.check()


async def test_lost_hints_and_answers_cost_time_only() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await connect(a)
        chance = Random(1)
        nodes.place.carry = lambda _sender, _to, _message: () if chance.random() < 0.5 else (0.01, 0.02)
        for number in range(20):
            receipt = await b.hub.publish("ada", "alarm", number, priority=CRITICAL)
            assert receipt.seq == number + 1
        nodes.check()


async def test_what_is_revoked_at_one_node_is_so_at_all_within_a_second() -> None:
    async with running("a", "b") as (_, (a, b)):
        peer = await connect(a)
        b.hub.end_sessions("ada", revoke=60)
        await b.hub.committed()
        await trio.sleep(1)
        assert peer.code == 4403
        assert a.hub.engine.revocations.covers("ada", None, a.hub.engine.wall_clock())


async def test_who_was_revoked_for_a_time_stays_when_that_is_over() -> None:
    async with running("a", "b", cleanup_interval=1.0) as (_, (a, b)):
        b.hub.end_sessions("ada", revoke=3)
        await b.hub.committed()
        await trio.sleep(5)
        peer = await connect(a)
        await trio.sleep(5)
        assert peer.code is None
        assert not a.hub.engine.revocations


async def test_who_is_idle_is_given_back() -> None:
    async with running("a", "b") as (nodes, (a, _)):
        receipt = await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        await trio.sleep(65)
        assert not a.hub.ownership.owned
        assert not nodes.place.data.owners
        with pytest.raises(Exception, match="held"):
            await receipt.confirmed()


async def test_a_log_that_cannot_be_read_keeps_no_other_from_expiring() -> None:
    async with running("a", critical_ttl=30.0) as (nodes, (a,)):
        users = ["ada", "bob", "eve"]
        for user in users:
            await a.hub.publish(user, "alarm", 1, priority=CRITICAL)
            assert await a.hub.hand_over(user)

        plain = a.store.load

        async def load(user: str) -> Kept | None:
            if user == "ada":
                raise StoreError("it makes no sense")
            return await plain(user)

        a.store.load = load  # type: ignore[method-assign]
        await trio.sleep(30 + a.hub.config.cleanup_interval)
        assert [user for user in users if nodes.place.data.logs.kept(user).events] == ["ada"]


async def test_what_expires_of_a_log_that_nobody_has_goes_together() -> None:
    async with running("a", "b", event_ttl=100) as (_, (a, b)):
        for number in range(20):
            await a.hub.publish("ada", "note", number, confirm=True)
            await trio.sleep(1)
        await trio.sleep(75)
        assert not a.hub.ownership.owned
        assert not b.hub.ownership.owned
        before = a.hub.ownership.claims + b.hub.ownership.claims
        await trio.sleep(60)
        stats = [life.hub.stats()["delivery"] for life in (a, b)]
        assert sum(each["events_expired"] for each in stats) == 20
        assert a.hub.ownership.claims + b.hub.ownership.claims - before <= 4


async def test_lost_commits_make_a_new_epoch() -> None:
    async with running("a") as (nodes, (a,)):
        first = await connect(a, acks=True)
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        snapshot = nodes.place.snapshot()
        await a.hub.publish("ada", "alarm", 2, priority=CRITICAL)
        await trio.sleep(0.1)
        nodes.place.restore(snapshot)
        await trio.sleep(3)
        assert first.code == 4503
        second = await connect(a, before=first)
        assert second.welcome["resumed"] is False
        assert second.welcome["epoch"] != first.welcome["epoch"]


@pytest.mark.parametrize("dies", [False, True])
async def test_a_run_in_a_log_that_has_lost_commits_ends_though_nobody_comes(*, dies: bool) -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await a.hub.open_run("ada", "r1", lease=5)
        snapshot = nodes.place.snapshot()
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        noticed = trio.Event()

        async def hook(step: str) -> None:
            if step == "lost!" and "ada" not in nodes.place.data.owners:
                noticed.set()
                a.store.away = dies  # before it can do anything about it

        a.store.hook = hook
        nodes.place.restore(snapshot)
        await noticed.wait()
        assert nodes.place.data.with_open_runs["ada"] == {"r1"}
        if dies:
            await a.kill()
        await trio.sleep(15)
        assert nodes.place.data.with_open_runs["ada"] == set()
        (run,) = await b.hub.runs("ada")
        assert run["status"] == "lost"
        nodes.check()


@pytest.mark.parametrize("seconds", [1.0, 1.6, 1.9, 2.5, 10.0])
async def test_who_hears_nothing_itself_takes_nobody_for_dead(seconds: float) -> None:
    async with running("a") as (nodes, (a,)):
        peer = await connect(a)
        await trio.sleep(0.45)
        b = await nodes.start("b")  # which beats long after a, and shortly before it
        await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        for life in (a, b):
            life.store.away = True

        async def publish() -> None:
            while True:
                try:
                    await b.hub.publish("ada", "alarm", 2, id="once", priority=CRITICAL)
                except StoreUnavailable:
                    await trio.sleep(0.05)
                else:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.sleep(seconds)
            b.store.away = False
            await trio.sleep(0.3)
            a.store.away = False
        assert b.hub.ownership.taken_over == 0
        await trio.sleep(1)
        assert payloads(peer) == [1, 2]
        assert peer.told is None
        nodes.check()
