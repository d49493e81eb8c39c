"""Going away in order, and otherwise: draining, and each way in which the block of a hub can end."""

from __future__ import annotations

import pytest
import trio

from trio_ws.core.pool import Ask, Refused
from trio_ws.errors import HubClosed, LocalError
from trio_ws.hub import Hub, Identity, open_hub

from .peers import Peer, running, settled


async def test_a_drain_tells_flushes_and_closes() -> None:
    async with running() as world:
        peer, plain = world.peer(acks=True).connect(), world.peer(plain=True).connect()
        await trio.sleep(1)
        for _ in range(2):
            await world.hub.publish("ada", "token")
            await settled()
        started = trio.current_time()
        await world.hub.drain()
        assert trio.current_time() - started < 0.1
        assert peer.kinds("drain") == [{"t": "drain", "after": [0.5, 0.54]}]
        assert peer.seqs == [1, 2]
        assert peer.told == plain.told == (4503, "the server is going away", None)
        assert [frame["type"] for frame in plain.frames] == ["token"] * 2
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        assert world.hub.stats()["draining"] is True
        assert world.hub.stopping.is_set()
        assert world.hub.retry_after == 5.0


async def test_acks_that_are_on_their_way_are_waited_for_a_second() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        started = trio.current_time()
        await world.hub.drain()
        assert trio.current_time() - started == pytest.approx(1.0)
        assert peer.code == 4503
        assert world.hub.describe("ada")["buffer"]["critical_unconfirmed"] == 1  # type: ignore[index]


async def test_a_late_ack_ends_the_wait() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        peer = world.peer().connect()
        receipt = await world.hub.publish("ada", "agent_started")
        await settled()

        async def ack() -> None:
            await trio.sleep(0.3)
            peer.ack(1)

        nursery.start_soon(ack)
        await world.hub.drain()
        assert trio.current_time() == pytest.approx(0.3)
        assert receipt.state == "settled"


async def test_a_stuck_link_holds_a_drain_up_to_its_deadline() -> None:
    async with running(drain_timeout=10) as world:
        stuck, fine = world.peer(lives=False).connect(), world.peer(acks=True).connect()
        await settled()
        stuck.room = 0
        stuck.stubborn = True
        await world.hub.publish("ada", "token")
        await settled()
        await world.hub.drain()
        assert trio.current_time() == pytest.approx(12.0)  # 2 s for those who don't go
        assert stuck.code == fine.code == 4503


async def test_a_stuck_link_that_drains_is_given_the_rest() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        peer = world.peer(acks=True, lives=False).connect()
        await settled()
        peer.room = 0
        for _ in range(3):
            await world.hub.publish("ada", "agent_started")
            await settled()
        assert peer.seqs == [1]
        nursery.start_soon(world.hub.drain)
        await trio.sleep(3)
        assert peer.code is None
        peer.take_all()
        await settled()
        assert peer.seqs == [1, 2, 3]
        assert peer.code == 4503


async def test_a_hub_that_drains_accepts_nothing_more() -> None:
    async with running() as world:
        await world.hub.drain()
        with pytest.raises(HubClosed, match="draining"):
            await world.hub.publish("ada", "token")
        with pytest.raises(HubClosed):
            world.hub.publish_nowait("ada", "token")
        with pytest.raises(HubClosed):
            await world.hub.broadcast(["ada"], "token")
        with pytest.raises(LocalError, match="going away"):
            world.hub.subscribe("ada")
        refused = world.hub.attach(Identity("ada"), Ask(), world.peer())
        assert isinstance(refused, Refused)
        assert (refused.code.code, refused.retry_after) == (4503, 5.0)


async def test_a_second_drain_waits_for_the_first() -> None:
    async with running(drain_timeout=10) as world, trio.open_nursery() as nursery:
        stuck = world.peer(lives=False).connect()
        await settled()
        stuck.room, stuck.stubborn = 0, True
        await world.hub.publish("ada", "token")
        await settled()
        nursery.start_soon(world.hub.drain)
        await trio.sleep(1)
        await world.hub.drain()
        assert trio.current_time() == pytest.approx(12.0)
        await world.hub.drain()
        assert trio.current_time() == pytest.approx(12.0)


async def test_leaving_the_block_waits_for_a_drain_that_is_under_way() -> None:
    async with trio.open_nursery() as nursery:
        async with open_hub() as hub:
            peer = Peer(hub, lives=False).connect()
            await settled()
            peer.room = 0
            hub.publish_nowait("ada", "token")
            await settled()
            nursery.start_soon(hub.drain)
            await settled()
        assert trio.current_time() == pytest.approx(hub.config.drain_timeout)
        assert hub.engine.closed


async def test_a_cancelled_drain_is_taken_up_by_the_next() -> None:
    async with running() as world:
        peer = world.peer(lives=False).connect()
        await settled()
        peer.room = 0
        await world.hub.publish("ada", "token")
        await settled()
        with trio.move_on_after(1):
            await world.hub.drain()
        assert peer.code is None
        await world.hub.drain(timeout=2)
        assert trio.current_time() == pytest.approx(3.0)
        assert peer.code == 4503


async def test_the_spread_of_reconnects_grows_with_the_number_of_clients() -> None:
    async with running(max_connections=200) as world:
        peers = [world.peer(f"user {n}").connect() for n in range(100)]
        await world.hub.drain()
        assert {tuple(peer.kinds("drain")[0]["after"]) for peer in peers} == {(0.5, 2.5)}
        # What would replace that range by one time for all is not said.
        assert {peer.told for peer in peers} == {(4503, "the server is going away", None)}


# -- the end of the block


async def _use(hub: Hub) -> Peer:
    peer = Peer(hub).connect()
    await hub.publish("ada", "agent_started")
    await settled()
    return peer


async def test_leaving_the_block_drains() -> None:
    async with open_hub() as hub:
        peer = await _use(hub)
    assert peer.code == 4503
    assert hub.engine.closed
    assert hub.stopping.is_set()
    assert not hub.engine.nursery.child_tasks


async def test_an_error_ends_it_at_once_and_comes_out_as_it_was() -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with open_hub() as hub:
            peer = await _use(hub)
            raise error
    assert caught.value is error
    assert trio.current_time() == 0.0
    assert peer.code == 4503
    assert hub.engine.closed
    assert not hub.engine.nursery.child_tasks


async def test_a_group_of_errors_comes_out_as_one_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_hub(), trio.open_nursery():
            raise ZeroDivisionError
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]


async def test_a_cancelled_block_ends_at_once() -> None:
    with trio.move_on_after(1) as scope:
        async with open_hub() as hub:
            await _use(hub)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 1.0
    assert hub.engine.closed
    assert not hub.engine.nursery.child_tasks


async def test_a_cancelled_drain_at_the_end_of_the_block_ends_it() -> None:
    with trio.move_on_after(0.5) as scope:
        async with open_hub() as hub:
            await _use(hub)  # it acks nothing: the drain would take a second
    assert scope.cancelled_caught
    assert hub.engine.closed


async def test_two_hubs_in_one_process_know_nothing_of_each_other() -> None:
    async with running() as one, running() as two:
        peer = two.peer().connect()
        await one.hub.publish("ada", "token")
        await trio.sleep(0.1)
        assert peer.kinds("event") == []
