"""Receipts: what becomes of an event, and waiting for its confirmation."""

from __future__ import annotations

import math

import pytest
import trio

from trio_ws.errors import ConfirmationTimeout
from trio_ws.event import Priority
from trio_ws.hub import Confirmation, Receipt

from .peers import running, settled


async def test_a_receipt_follows_its_event() -> None:
    async with running() as world:
        peer = world.peer().connect()
        other = world.peer().connect()
        await settled()
        receipt = await world.hub.publish("ada", "agent_started")
        states = [receipt.state]
        await settled()
        states.append(receipt.state)
        peer.ack(1)
        states.append(receipt.state)
        other.ack(1)
        states.append(receipt.state)
        assert states == ["held", "sent", "confirmed", "settled"]
        assert repr(receipt) == f"<Receipt {receipt.id!r} seq 1: settled>"


async def test_confirmed_ends_with_the_first_ack() -> None:
    async with running() as world:
        peer = world.peer().connect()
        world.peer().connect()
        receipt = await world.hub.publish("ada", "agent_started")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ack_after, peer, 1, 0.25)
            assert await receipt.confirmed() == Confirmation(after=0.25, late=False)
        assert trio.current_time() == 0.25
        assert (await receipt.confirmed()).after == 0.25


async def _ack_after(peer: object, seq: int, seconds: float) -> None:
    await trio.sleep(seconds)
    peer.ack(seq)  # type: ignore[attr-defined]


async def test_several_tasks_may_wait_and_one_that_is_cancelled_takes_none_with_it() -> None:
    async with running() as world:
        peer = world.peer().connect()
        receipt = await world.hub.publish("ada", "agent_started")
        ended: list[str] = []

        async def wait(name: str, scope: trio.CancelScope) -> None:
            with scope:
                await receipt.confirmed()
                ended.append(name)

        scopes = [trio.CancelScope() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for name, scope in zip("abc", scopes, strict=True):
                nursery.start_soon(wait, name, scope)
            await settled()
            scopes[1].cancel()
            await settled()
            entry = world.hub.engine.buffer.mailbox("ada").entries[1]
            assert entry.waiters is not None
            assert len(entry.waiters) == 2
            peer.ack(1)
        assert sorted(ended) == ["a", "c"]
        assert entry.waiters is None


async def test_a_wait_has_a_deadline_and_can_be_taken_up_again() -> None:
    async with running(confirm_timeout=5) as world:
        receipt = await world.hub.publish("ada", "agent_started")
        with pytest.raises(ConfirmationTimeout) as caught:
            await receipt.confirmed()
        assert (trio.current_time(), caught.value.state) == (5.0, "held")
        with pytest.raises(ConfirmationTimeout):
            await receipt.confirmed(timeout=2)
        assert trio.current_time() == 7.0
        peer = world.peer(acks=True).connect()
        with trio.fail_after(1):
            await receipt.confirmed(timeout=math.inf)
        assert peer.seqs == [1]


async def test_an_infinite_wait_is_the_callers_to_end() -> None:
    async with running() as world:
        receipt = await world.hub.publish("ada", "agent_started")
        with trio.move_on_after(1000) as scope:
            await receipt.confirmed(timeout=math.inf)
        assert scope.cancelled_caught


@pytest.mark.parametrize("timeout", [0, -1])
async def test_without_time_to_wait_it_tells_how_things_stand(timeout: float) -> None:
    async with running() as world:
        receipt = await world.hub.publish("ada", "agent_started")
        with pytest.raises(ConfirmationTimeout):
            await receipt.confirmed(timeout=timeout)
        peer = world.peer(acks=True).connect()
        await settled()
        assert peer.seqs == [1]
        assert (await receipt.confirmed(timeout=timeout)).after == 0.0


async def test_it_is_a_checkpoint_for_cancellation_even_if_all_is_done() -> None:
    async with running() as world:
        world.peer(acks=True).connect()
        receipt = await world.hub.publish("ada", "agent_started")
        await receipt.confirmed()
        with trio.CancelScope() as scope:
            scope.cancel()
            await receipt.confirmed()
        assert scope.cancelled_caught


async def test_a_late_ack_confirms_late() -> None:
    async with running(confirm_timeout=0.3) as world:
        peer = world.peer().connect()
        receipt = await world.hub.publish("ada", "agent_started")
        await trio.sleep(0.4)
        assert world.hub.stats()["delivery"]["messages_timeout"] == 1
        peer.ack(1)
        assert await receipt.confirmed() == Confirmation(after=0.4, late=True)
        delivery = world.hub.stats()["delivery"]
        assert (delivery["messages_confirmed"], delivery["messages_late"]) == (1, 1)
        assert delivery["confirmation_rate"] == 0.0


async def _fails(receipt: Receipt, state: str) -> None:
    """Wait for a confirmation that will not come."""
    with pytest.raises(ConfirmationTimeout) as caught:
        await receipt.confirmed(timeout=math.inf)
    assert (caught.value.state, receipt.state) == (state, state)


async def test_who_waits_for_an_evicted_event_is_told() -> None:
    async with running(max_events_per_user=2) as world, trio.open_nursery() as nursery:
        receipt = await world.hub.publish("ada", "token", priority=Priority.LOW)
        nursery.start_soon(_fails, receipt, "evicted")
        await settled()
        for _ in range(2):
            await world.hub.publish("ada", "token")
        await settled()
        assert world.hub.engine.books.evicted == 1
        await _fails(receipt, "evicted")


async def test_who_waits_for_a_superseded_event_is_told() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        receipt = await world.hub.publish("ada", "progress", 1, key="bar")
        nursery.start_soon(_fails, receipt, "superseded")
        await settled()
        await world.hub.publish("ada", "progress", 2, key="bar")


async def test_who_waits_for_an_expired_event_is_told() -> None:
    async with running(cleanup_interval=30) as world, trio.open_nursery() as nursery:
        receipt = await world.hub.publish("ada", "token", ttl=10)
        nursery.start_soon(_fails, receipt, "expired")
        await trio.sleep(31)
        assert receipt.state == "expired"


async def test_a_merged_delta_shares_the_fate_of_the_one_it_went_into() -> None:
    async with running(max_events_per_user=3) as world, trio.open_nursery() as nursery:
        deltas = [await world.hub.publish("ada", "token", {"text": c}, merge="append") for c in "ab"]
        confirmations: list[Confirmation] = []

        async def wait(receipt: Receipt) -> None:
            confirmations.append(await receipt.confirmed(timeout=math.inf))

        for receipt in deltas:
            nursery.start_soon(wait, receipt)
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await deltas[0].confirmed(timeout=math.inf)

        nursery.start_soon(give_up)
        await settled()
        for _ in range(2):
            await world.hub.publish("ada", "agent_started")
        assert [receipt.state for receipt in deltas] == ["merged", "merged"]
        joined = world.hub.engine.buffer.mailbox("ada").entries[1]
        assert joined.waiters is not None
        assert len(joined.waiters) == 3
        impatient.cancel()
        await settled()
        assert len(joined.waiters) == 2
        peer = world.peer(acks=True).connect()
        await settled()
        assert len(confirmations) == 2
        event = peer.kinds("event")[0]
        assert (event["payload"], event["merged"]) == ({"text": "ab"}, {"from": 1, "n": 1})


async def test_a_plain_client_confirms_by_being_sent_to() -> None:
    async with running() as world:
        peer = world.peer(plain=True).connect()
        receipt = await world.hub.publish("ada", "agent_started", {"n": 1})
        assert (await receipt.confirmed()).after == 0.0
        assert peer.frames == [{"id": receipt.id, "type": "agent_started", "payload": {"n": 1}, "ts": 1e9}]


async def test_the_confirmation_timeout_is_counted_once_and_in_time_even_if_the_transport_stalls() -> None:
    async with running() as world:
        peer = world.peer(lives=False)
        peer.connect()
        await trio.sleep(28)  # a heartbeat of the idle interval has passed: the next timer is far away
        peer.room = 0
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(5.001)
        assert world.hub.stats()["delivery"]["messages_timeout"] == 1
        await trio.sleep(20)
        assert world.hub.stats()["delivery"]["messages_timeout"] == 1
