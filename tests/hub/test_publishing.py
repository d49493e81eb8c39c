"""Publishing: what is accepted, what is refused, and what several users are given."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from trio_ws.errors import EventTooLarge, HubClosed, InvalidEvent
from trio_ws.event import Draft, Priority
from trio_ws.hub import intake, open_hub, publisher

from .peers import running, settled


async def test_an_event_reaches_every_session_of_its_user_and_nobody_else() -> None:
    async with running() as world:
        tab, phone = world.peer().connect(), world.peer().connect()
        other = world.peer("bob").connect()
        receipt = await world.hub.publish("ada", "agent_started", {"run": 7})
        await settled()
        assert (receipt.user, receipt.seq, receipt.duplicate) == ("ada", 1, False)
        assert receipt.epoch == tab.welcome["epoch"] == world.hub.engine.buffer.mailbox("ada").epoch
        for peer in (tab, phone):
            (event,) = peer.kinds("event")
            assert event == {
                "t": "event",
                "seq": 1,
                "critical": True,
                "id": receipt.id,
                "type": "agent_started",
                "payload": {"run": 7},
                "ts": 1e9,
            }
        assert other.kinds("event") == []


async def test_ids_of_the_hub_are_all_different() -> None:
    async with running() as world:
        receipts = [await world.hub.publish(user, "token") for user in ("ada", "bob", "ada")]
        assert len({receipt.id for receipt in receipts}) == 3


async def test_a_publishers_id_makes_one_event() -> None:
    async with running() as world:
        first = await world.hub.publish("ada", "agent_started", id="run-7")
        again = await world.hub.publish("ada", "agent_started", id="run-7")
        assert (again.seq, again.duplicate, again.id) == (first.seq, True, "run-7")
        assert not world.hub.publish_nowait("bob", "agent_started", id="run-7").duplicate
        assert world.hub.engine.books.accepted == 2
        assert world.hub.stats()["delivery"]["events_duplicate"] == 1


@pytest.mark.pure  # a constant is patched
async def test_types_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "KINDS", 2)
    async with running() as world:
        for type in ("token", "agent_started", "note", "status", "agent_started"):
            await world.hub.publish("ada", type)
            assert len(world.hub.intake._kinds) <= 2
        assert world.hub.engine.books.firm_events == 2
        with pytest.raises(InvalidEvent):
            await world.hub.publish("ada", "a\nb")


@pytest.mark.parametrize(
    ("field", "draft"),
    [
        ("type", Draft(type="")),
        ("type", Draft(type="a\nb")),
        ("type", Draft(type=[])),  # type: ignore[arg-type]
        ("type", Draft(type="x" * 129)),
        ("id", Draft(type="x", id="")),
        ("key", Draft(type="x", key="\ud800")),
        ("merge", Draft(type="x", merge="prepend")),  # type: ignore[arg-type]
        ("ttl", Draft(type="x", ttl=0)),
        ("ttl", Draft(type="x", ttl=float("inf"))),
        ("ttl", Draft(type="x", ttl=True)),
        ("priority", Draft(type="x", priority=3)),  # type: ignore[arg-type]
        ("payload", Draft(type="x", payload=object())),
        ("payload", Draft(type="x", payload=float("nan"))),
    ],
)
async def test_what_is_out_of_bounds_is_refused_by_its_field(field: str, draft: Draft) -> None:
    fields = {name: value for name, value in attrs.asdict(draft, recurse=False).items() if name != "type"}
    async with running() as world:
        with pytest.raises(InvalidEvent) as caught:
            await world.hub.publish("ada", draft.type, **fields)
        assert caught.value.field == field
        with pytest.raises(InvalidEvent):
            world.hub.publish_nowait("ada", draft.type, **fields)
        with world.hub.channel("ada") as channel, pytest.raises(InvalidEvent):
            await channel.send(draft)
        with world.hub.channel("ada") as channel, pytest.raises(InvalidEvent):
            channel.send_nowait(draft)
        assert world.hub.engine.books.accepted == 0
        assert not world.hub.engine.buffer.mailboxes


@pytest.mark.parametrize("user", ["", "a\x00", "x" * 129, 7])
async def test_a_user_is_a_name(user: str) -> None:
    async with running() as world:
        for call in (world.hub.channel, world.hub.subscribe):
            with pytest.raises(InvalidEvent, match="user"):
                call(user)
        with pytest.raises(InvalidEvent, match="user"):
            await world.hub.publish(user, "token")
        with pytest.raises(InvalidEvent, match="user"):
            await world.hub.broadcast([user], "token")


async def test_what_can_never_fit_is_refused() -> None:
    async with running(max_event_bytes=2048, max_bytes_per_user=2048) as world:
        with pytest.raises(EventTooLarge):
            await world.hub.publish("ada", "agent_started", "x" * 2040)
        with pytest.raises(EventTooLarge):
            await world.hub.publish("ada", "token", "x" * 1500, merge="append")
        await world.hub.publish("ada", "token", "x" * 1500)


async def test_an_oversized_event_is_cut_or_where_it_is_critical_refused() -> None:
    async with running(max_event_bytes=1000) as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "token", {"text": "x" * 2000})
        with pytest.raises(EventTooLarge):
            await world.hub.publish("ada", "agent_started", {"text": "x" * 2000})
        with pytest.raises(EventTooLarge):
            await world.hub.publish("ada", "token", [1] * 2000)
        await settled()
        (event,) = peer.kinds("event")
        assert event["truncated"] is True
        assert 0 < len(event["payload"]["text"]) < 1000


async def test_large_payloads_are_encoded_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_off = []

    async def inline(encode: Any, payload: object, *, abandon_on_cancel: bool) -> bytes:
        sent_off.append(payload)
        assert abandon_on_cancel
        result: bytes = encode(payload)
        return result

    async with running() as world:
        monkeypatch.setattr(trio.to_thread, "run_sync", inline)
        peer = world.peer().connect()
        await world.hub.publish("ada", "token", "small")
        await world.hub.publish("ada", "token", "x" * 100_000)
        await trio.sleep(0.1)
        assert [event["payload"] for event in peer.kinds("event")] == ["small", "x" * 100_000]
        assert sent_off == ["x" * 100_000]
        assert world.hub.stats()["serialization"]["slow"] == 1


async def test_an_encoding_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: object, **options: object) -> None:
        await trio.sleep_forever()

    async with running() as world:
        monkeypatch.setattr(trio.to_thread, "run_sync", never)
        with pytest.raises(InvalidEvent, match="more than 1 s"):
            await world.hub.publish("ada", "token", "x" * 100_000)
        assert trio.current_time() == pytest.approx(1.0)
        assert world.hub.stats()["serialization"]["timeouts"] == 1


async def test_an_event_that_was_encoded_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(encode: object, payload: object, **options: object) -> bytes:
        await trio.sleep(0.5)
        return b'"done"'

    async with running() as world, trio.open_nursery() as nursery:
        monkeypatch.setattr(trio.to_thread, "run_sync", slow)

        async def publish(broadcast: bool) -> None:
            with pytest.raises(HubClosed):
                if broadcast:
                    await world.hub.broadcast(["ada"], "token", "x" * 100_000)
                else:
                    await world.hub.publish("ada", "token", "x" * 100_000)

        nursery.start_soon(publish, False)
        nursery.start_soon(publish, True)
        await settled(0.1)
        await world.hub.drain()
        await trio.sleep(1)
        assert world.hub.engine.books.accepted == 0


async def test_a_cancelled_publish_accepts_nothing() -> None:
    async with running() as world:
        with trio.CancelScope() as scope:
            scope.cancel()
            await world.hub.publish("ada", "token")
        assert scope.cancelled_caught
        assert world.hub.engine.books.accepted == 0


async def test_a_publisher_in_a_loop_lets_others_run() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        ran = []

        async def other() -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            ran.append(world.hub.engine.books.accepted)

        nursery.start_soon(other)
        for _ in range(10 * publisher.YIELD_EVERY):
            await world.hub.publish("ada", "token", priority=Priority.LOW)
        assert ran
        assert ran[0] <= 6 * publisher.YIELD_EVERY


async def test_a_broadcast_reaches_each_user_once_under_one_id() -> None:
    async with running() as world:
        ada, bob = world.peer("ada").connect(), world.peer("bob").connect()
        receipts = await world.hub.broadcast(["bob", "ada", "bob"], "agent_started", {"n": 1})
        await settled()
        assert [receipt.user for receipt in receipts] == ["bob", "ada"]
        assert len({receipt.id for receipt in receipts}) == 1
        assert ada.kinds("event") == bob.kinds("event") != []
        boxes = world.hub.engine.buffer.mailboxes
        assert boxes["ada"].entries[1].tail is boxes["bob"].entries[1].tail


async def test_a_broadcast_to_all_reaches_whoever_is_known() -> None:
    async with running() as world:
        world.peer("connected").connect()
        world.peer("parked").connect().die()
        await world.hub.publish("held", "token")
        receipts = await world.hub.broadcast("*", "news")
        assert {receipt.user for receipt in receipts} == {"connected", "parked", "held"}


async def test_a_broadcast_to_one_name_is_a_mistake() -> None:
    async with running() as world:
        with pytest.raises(InvalidEvent, match="several names") as caught:
            await world.hub.broadcast("ada", "token")
        assert caught.value.field == "users"
        assert not world.hub.engine.buffer.mailboxes


async def test_a_repeated_broadcast_gives_the_same_receipts() -> None:
    async with running() as world:
        await world.hub.broadcast(["ada"], "token", id="one")
        receipts = await world.hub.broadcast(["ada", "bob"], "token", id="one")
        assert [receipt.duplicate for receipt in receipts] == [True, False]


async def test_a_broadcast_to_many_lets_others_run() -> None:
    async with running(max_events=1000) as world, trio.open_nursery() as nursery:
        seen = []

        async def look() -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            seen.append(world.hub.engine.books.accepted)

        nursery.start_soon(look)
        await world.hub.broadcast([f"user {n}" for n in range(500)], "token")
        assert seen
        assert 0 < seen[0] < 500


async def test_a_user_who_is_full_for_long_holds_up_no_other_of_a_broadcast() -> None:
    async with running(max_events_per_user=1) as world, trio.open_nursery() as nursery:
        bob = world.peer("bob").connect()
        for user in ("ada", "bob"):
            await world.hub.publish(user, "agent_started")
        done = []

        async def broadcast() -> None:
            done.append(await world.hub.broadcast(["ada", "bob", "eve"], "agent_completed"))

        nursery.start_soon(broadcast)
        await settled()
        assert world.hub.describe("eve")["buffer"]["held"] == 1  # type: ignore[index]
        assert world.hub.engine.room.waiting == 2
        bob.ack(1)
        await settled()
        assert bob.seqs == [1, 2]
        assert world.hub.engine.room.waiting == 1
        assert not done
        ada = world.peer("ada").connect()
        await settled()
        ada.ack(1)
        await settled()
        assert [(receipt.user, receipt.seq) for receipt in done[0]] == [("ada", 2), ("bob", 2), ("eve", 1)]


async def test_a_channel_closes_as_memory_channels_do() -> None:
    async with running(max_events_per_user=3) as world:
        channel = world.hub.channel("ada")
        other = channel.clone()
        await channel.send(Draft(type="agent_started"))
        assert other.send_nowait(Draft(type="token")).seq == 2
        assert (await other.publish(Draft(type="token"))).seq == 3
        statistics = channel.statistics()
        assert (statistics.current_buffer_used, statistics.max_buffer_size) == (3, 3)
        assert (statistics.open_send_channels, statistics.tasks_waiting_send) == (2, 0)
        channel.close()
        await channel.aclose()
        assert other.statistics().open_send_channels == 1
        for call in (channel.clone, lambda: channel.send_nowait(Draft(type="token"))):
            with pytest.raises(trio.ClosedResourceError):
                call()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send(Draft(type="token"))
        async with other:
            pass
        assert not world.hub.channels


async def test_a_channel_outlives_its_hub_as_a_broken_one() -> None:
    async with open_hub() as hub:
        channel = hub.channel("ada")
        assert channel.statistics().current_buffer_used == 0
        await hub.drain()
        with pytest.raises(HubClosed):
            await channel.send(Draft(type="token"))
    with pytest.raises(trio.BrokenResourceError):
        await channel.send(Draft(type="token"))
    with pytest.raises(HubClosed, match="ended"):
        hub.publish_nowait("ada", "token")
