"""What campaigns have found, each as the smallest scene that shows it."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.hub.peers import running, settled
from trio_ws.server import Credentials
from trio_ws.testing import Simulation, run_simulated, simulate


async def test_what_becomes_the_oldest_by_an_ack_is_redelivered_in_time(autojump_clock: object) -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(2.1)  # sent again after 0.5, 1 and 2 s; next after 5 s
        await world.hub.publish("ada", "agent_completed")
        await settled()
        await trio.sleep(0.1)
        peer.ack(1)
        await trio.sleep(0.65)
        assert peer.seqs.count(2) == 2


def test_what_waits_in_a_client_is_not_lost_with_it_when_its_session_had_to_begin_anew() -> None:
    async def main(sim: Simulation) -> list[object]:
        async with sim.open_hub() as hub, trio.open_nursery() as nursery:
            await nursery.start(sim.serve, hub)
            for number in range(4):
                await hub.publish("ada", "note", number)
            async with sim.connect("ada", bye=False) as client:
                assert (await client.receive()).payload == 0
                await client.wait_live()
                before = client.saved()
                assert before is not None
                sim.network.connections[0].reset()
                await trio.sleep(0.05)
                assert hub.end_session("ada", before.session)
                await client.wait_live()
            async with sim.connect("ada", session=client.saved()) as client:
                seen = [(await client.receive()).payload for _ in range(3)]
            nursery.cancel_scope.cancel()
        return seen

    assert run_simulated(1, main) == [1, 2, 3]


def test_a_connection_whose_credentials_took_long_does_not_take_the_session_from_a_later_one() -> None:
    async def main(sim: Simulation) -> str:
        waits = [0.0, 2.0, 0.0]

        async def authenticate(credentials: Credentials) -> str:
            await trio.sleep(waits.pop(0))
            return "ada"

        async with sim.open_hub() as hub, trio.open_nursery() as nursery:
            await nursery.start(partial(sim.serve, hub, authenticate=authenticate))
            async with sim.connect("ada", token="t") as client:
                await client.wait_live()
                for _ in range(2):  # the second breaks while it is being authenticated
                    sim.network.connections[-1].reset()
                    await trio.sleep(0.4)
                await trio.sleep(5)
                state = client.state.name
            nursery.cancel_scope.cancel()
        return state

    assert run_simulated(1, main) == "live"


async def test_what_a_client_claimed_to_have_and_is_sent_after_all_is_redelivered_and_confirmed(
    autojump_clock: object,
) -> None:
    async with running() as world:
        peer = world.peer().connect()
        await settled()
        peer.die()
        receipt = await world.hub.publish("ada", "agent_started")
        liar = peer.again(1)
        await settled()
        liar.die()
        back = liar.again(0)
        await trio.sleep(0.6)
        assert back.seqs == [1, 1], "once more after half a second"
        back.ack(1)
        assert receipt.state == "settled"


@pytest.mark.parametrize(
    "seed",
    [
        13040,  # what is nacked is due by the schedule a rounding error later
        13828,  # a broadcast was accepted by one user long before its publisher was told
        14322,  # publishers who wait are served, and the server goes away before they can say so
        19898,  # a hub dies as it comes up: nobody is to use it
        27880,  # that the oldest has left the log is noticed after a pause
        10447,  # critical, processed and not acked, and its publisher was cancelled before it heard of it
        15891,
        10931,  # superseded by what its publisher has not heard of yet
        17761,
        15103,  # a nack of joined deltas, of which one has expired
        18345,  # a hello that comes when its client has long gone on over another connection
        37499,  # a crash in the instant in which an event would have been processed
        37865,  # a twin that comes in the instant of a crash
        2652,  # a slow line is slow no more
        7306,  # relief for a second publisher, in the step in which the first had an event evicted
        9670,  # that the oldest has left the log is noticed when the transport takes something again
        14605,  # a try that is late for a pause counts as the last, too
        31800,  # that the oldest has left the log is noticed with the next ack
        26686,  # what the probe published was processed, and its ack not sent, when everybody left
    ],
)
def test_what_is_right_is_not_taken_for_a_violation(seed: int) -> None:
    assert not simulate(seed, level="message").violations


@pytest.mark.parametrize(
    "seed",
    [
        2029,  # the time of day is put forward by an hour between two lives: a session counts as parked that long
        5124,  # a log has come for a connection that has its session a step later
        5133,  # what was sent and never acked fills its share: a new session is to take it before the rest comes
    ],
)
def test_over_a_disk_what_is_right_is_not_taken_for_a_violation(seed: int) -> None:
    assert not simulate(seed, level="message", durable=True).violations


def test_a_publisher_who_waits_does_not_have_the_store_read_over_and_over() -> None:
    assert not simulate(6000, level="message", durable=True).violations


def test_who_waits_for_deltas_to_be_durable_is_not_flushed_over_and_over() -> None:
    assert not simulate(100, level="message", durable=True, runs=True).violations
