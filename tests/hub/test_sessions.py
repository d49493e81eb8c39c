"""Sessions: parked and resumed, fenced off, displaced, expired; the pool's and the recovery's figures."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws.core import wire
from trio_ws.core.pool import Ask, Refused
from trio_ws.hub import Hub, Identity

from .peers import Peer, running, settled


def _pool(hub: Hub) -> dict[str, Any]:
    pool: dict[str, Any] = hub.stats()["pool"]
    return pool


async def test_a_session_is_parked_and_resumed_where_the_client_is() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "token", 1)
        await settled()
        peer.die()
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        for n in (2, 3):
            await world.hub.publish("ada", "token", n)
        again = peer.again()
        await settled()
        assert (again.welcome["session"], again.welcome["resumed"]) == (peer.welcome["session"], True)
        assert (again.welcome["seq"], again.welcome["head"]) == (1, 3)
        assert again.seqs == [2, 3]
        assert again.kinds("live") == [{"t": "live", "seq": 3}]
        pool = _pool(world.hub)
        assert (pool["pools_created"], pool["pool_hits"], pool["pool_misses"]) == (1, 1, 0)
        assert pool["connections_reused"] == 1
        assert pool["utilization"] == 0.01


async def test_what_was_in_flight_is_sent_again_and_what_was_acked_is_not() -> None:
    async with running() as world:
        peer = world.peer().connect()
        for _ in range(4):
            await world.hub.publish("ada", "agent_started")
        await settled()
        peer.ack(2)
        peer.die()
        again = peer.again(0)
        await settled()
        assert again.welcome["seq"] == 2
        assert again.seqs == [3, 4]
        again.ack(4)
        assert world.hub.engine.books.settled == 4


@pytest.mark.parametrize(("behind", "seqs"), [(0, []), (1, [8]), (2, [7, 8]), (8, [1, 2, 3, 4, 5, 6, 7, 8])])
async def test_a_resume_at_the_edges_of_the_log(behind: int, seqs: list[int]) -> None:
    async with running() as world:
        peer = world.peer().connect()
        for _ in range(8):
            await world.hub.publish("ada", "token")
        await trio.sleep(0.1)
        peer.die()
        again = peer.again(8 - behind)
        await settled()
        assert again.seqs == seqs
        assert again.kinds("live") == [{"t": "live", "seq": 8}]


async def test_a_resume_below_what_is_held_begins_with_a_gap() -> None:
    async with running(max_events_per_user=3) as world:
        peer = world.peer().connect()
        await settled()
        peer.die()
        for _ in range(8):
            await world.hub.publish("ada", "token")
        again = peer.again(0)
        await settled()
        assert again.kinds("gap") == [
            {"t": "gap", "from": 1, "to": 5, "reason": "evicted", "lost": {"token": 5}, "critical": 0}
        ]
        assert again.seqs == [6, 7, 8]


@pytest.mark.parametrize("start", [{"seq": 9}, {"epoch": "another"}])
async def test_what_cannot_be_resumed_is_a_new_session(start: dict[str, Any]) -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "token")
        await settled()
        peer.die()
        ask = {"session": peer.welcome["session"], "epoch": peer.welcome["epoch"], "seq": 1} | start
        again = world.peer().connect(**ask)
        await settled()
        assert again.welcome["resumed"] is False
        assert again.welcome["session"] != peer.welcome["session"]
        assert again.seqs == [1]
        assert _pool(world.hub)["pool_misses"] == 1


async def test_a_session_of_another_user_is_not_known() -> None:
    async with running() as world:
        ada = world.peer().connect()
        await world.hub.publish("ada", "token", "secret")
        bob = world.peer("bob").connect(session=ada.welcome["session"], epoch=ada.welcome["epoch"], seq=0)
        await settled()
        assert bob.welcome["resumed"] is False
        assert bob.kinds("event") == []
        assert ada.code is None


async def test_the_newest_connection_of_a_session_wins() -> None:
    async with running() as world:
        old = world.peer().connect()
        old.stubborn = True
        await world.hub.publish("ada", "agent_started")
        await settled()
        new = old.again(0)
        assert old.told == (4409, "this session connected elsewhere", None)
        written = len(old.writes)
        old.say(wire.ack(1))
        old.say(wire.PING)
        old.say(wire.message("m", "hi", b"null"))
        old.say(wire.BYE)
        assert old.attachment is not None
        old.attachment.drained()
        old.attachment.answer(wire.PONG)
        old.attachment.drain(1, 2)
        await world.hub.publish("ada", "agent_completed")
        await trio.sleep(0.1)
        assert len(old.writes) == written
        assert world.hub.engine.books.settled == 0
        assert world.hub.stats()["connections"]["current"] == 1
        old.attachment.detach()
        assert world.hub.stats()["sessions"] == {"active": 1, "parked": 0}
        assert new.seqs == [1, 2]
        new.ack(2)
        assert world.hub.engine.books.settled == 2


async def test_the_users_limit_takes_the_stalest() -> None:
    async with running(max_connections_per_user=3) as world:
        parked, silent, oldest = (world.peer(acks=n != 1).connect() for n in range(3))
        await world.hub.publish("ada", "token")
        await trio.sleep(2.5)
        parked.die()
        session_of_parked = parked.welcome["session"]
        world.peer(acks=True).connect()
        assert [peer.code for peer in (parked, silent, oldest)] == [None, None, None]
        assert session_of_parked not in world.hub.engine.buffer.mailbox("ada").sessions
        world.peer(acks=True).connect()
        assert silent.told == (4409, "the user's limit took this connection", None)
        world.peer(acks=True).connect()
        assert oldest.code == 4409
        connections = world.hub.stats()["connections"]
        assert (connections["current"], connections["superseded"]) == (3, 2)
        await settled()
        assert world.hub.stats()["connections"]["current"] == 3


async def test_with_reject_the_newcomer_is_refused() -> None:
    async with running(max_connections_per_user=1, over_limit="reject") as world:
        peer = world.peer().connect()
        refused = world.hub.attach(Identity("ada"), Ask(), world.peer())
        assert isinstance(refused, Refused)
        assert refused.code.code == 4429
        assert peer.code is None
        assert world.hub.stats()["connections"]["rejected"] == 1
        again = peer.again()
        assert again.welcome["resumed"] is True


async def test_the_limit_in_all_refuses_with_a_time_to_come_back() -> None:
    async with running(max_connections_per_user=1, max_connections=1) as world:
        world.peer().connect()
        refused = world.hub.attach(Identity("bob"), Ask(), world.peer("bob"))
        assert isinstance(refused, Refused)
        assert (refused.code.code, refused.retry_after) == (4503, 5.0)


async def test_a_session_that_makes_way_makes_room_for_a_publisher_too() -> None:
    limits = {"max_connections_per_user": 2, "max_events_per_user": 1}
    async with running(**limits) as world, trio.open_nursery() as nursery:
        slow = world.peer().connect()
        world.peer(acks=True).connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        nursery.start_soon(world.hub.publish, "ada", "agent_completed")
        await trio.sleep(2.5)
        newcomer = world.peer(acks=True).connect(start="now")
        assert slow.code == 4409
        assert newcomer.welcome["head"] == newcomer.welcome["seq"] == 1
        await settled()
        assert newcomer.seqs == [2]


async def test_only_so_many_sessions_are_parked_the_oldest_go() -> None:
    async with running(max_connections_per_user=1, max_connections=1) as world:
        sessions = []
        for n in range(6):
            peer = world.peer(f"user {n}").connect()
            sessions.append(peer.welcome["session"])
            peer.die()
        left = [id for box in world.hub.engine.buffer.mailboxes.values() for id in box.sessions]
        assert left == sessions[2:]
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 4}


@pytest.mark.parametrize(("start", "seqs"), [("retained", [1, 2, 3]), ("pending", [2, 3]), ("now", [])])
async def test_where_a_new_session_starts(start: str, seqs: list[int]) -> None:
    async with running() as world:
        other = world.peer().connect()
        for _ in range(3):
            await world.hub.publish("ada", "agent_started")
        await settled()
        other.ack(1)
        peer = world.peer().connect(start=start)
        await settled()
        assert peer.seqs == seqs
        assert peer.welcome["resumed"] is False
        assert peer.kinds("live") == [{"t": "live", "seq": 3}]


async def test_a_parked_session_expires_and_its_client_goes_on_in_a_new_one() -> None:
    async with running(session_ttl=60, event_ttl=3600, cleanup_interval=30) as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        peer.die()
        await world.hub.publish("ada", "agent_completed")
        await trio.sleep(59)
        assert world.hub.engine.pool.parked == 1
        await trio.sleep(32)
        assert world.hub.engine.pool.parked == 0
        again = peer.again()
        await settled()
        assert again.welcome["resumed"] is True
        assert again.welcome["session"] != peer.welcome["session"]
        assert again.welcome["epoch"] == peer.welcome["epoch"]
        assert again.seqs == [2]
        assert _pool(world.hub)["pool_misses"] == 1


async def test_a_bye_ends_the_session_for_good() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        peer.say(wire.BYE)
        await settled()
        assert peer.told == (1000, "bye", None)
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 0}
        assert world.hub.describe("ada")["buffer"]["held"] == 1  # type: ignore[index]


async def test_an_ended_session_can_be_closed_by_the_operator() -> None:
    async with running() as world:
        peer = world.peer().connect()
        (session,) = world.hub.engine.buffer.mailbox("ada").sessions.values()
        world.hub.reception.end(session)
        assert peer.attachment is not None
        assert peer.attachment.fenced
        peer.die()
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 0}


async def test_a_plain_client_is_given_live_events_only_and_is_never_parked() -> None:
    async with running() as world:
        await world.hub.publish("ada", "token", "before")
        peer = world.peer(plain=True).connect()
        await world.hub.publish("ada", "token", "after")
        await trio.sleep(0.1)
        assert [frame["payload"] for frame in peer.frames] == ["after"]
        peer.die()
        assert world.hub.stats()["sessions"] == {"active": 0, "parked": 0}


# -- recovery


async def test_a_recovery_lasts_from_the_cut_to_the_last_missed_event_processed() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(0.1)
        peer.die()
        for _ in range(2):
            await world.hub.publish("ada", "agent_thinking")
        await trio.sleep(0.5)
        again = peer.again(0)
        await trio.sleep(0.2)
        again.ack(2)
        assert world.hub.engine.recovery.count == 0
        await trio.sleep(0.3)
        again.ack(3)
        recovery = world.hub.stats()["recovery"]
        assert recovery["count"] == 1
        assert world.hub.engine.recovery.total == pytest.approx(1.0)
        await world.hub.publish("ada", "agent_completed")
        await settled()
        again.ack(4)
        assert world.hub.engine.recovery.count == 1


async def test_a_half_open_cut_is_dated_to_when_something_was_last_heard() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        peer.acks = peer.lives = False
        await trio.sleep(1)
        await world.hub.publish("ada", "agent_completed")
        await trio.sleep(4)
        assert peer.dropped_at == 4.0
        again = peer.again(1)
        await settled()
        again.ack(2)
        assert world.hub.engine.recovery.total == pytest.approx(5.0)


async def test_a_recovery_that_is_cut_again_began_with_the_first_cut() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        for _ in range(3):
            peer.die()
            await trio.sleep(1)
            peer = peer.again(0)
            await settled()
        peer = peer.again(0)  # it even takes itself over
        await settled()
        peer.ack(1)
        assert world.hub.engine.recovery.count == 1
        assert world.hub.engine.recovery.total == pytest.approx(3.0)


async def test_a_recovery_with_nothing_missed_is_over_at_once() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "agent_started")
        await settled()
        peer.die()
        await trio.sleep(0.5)
        peer.again()
        await trio.sleep(100)
        await world.hub.publish("ada", "agent_completed")
        await settled()
        assert world.hub.engine.recovery.count == 1
        assert world.hub.engine.recovery.total == pytest.approx(0.5)


async def test_a_new_session_is_no_recovery() -> None:
    async with running() as world:
        await world.hub.publish("ada", "agent_started")
        peer: Peer = world.peer(acks=True).connect()
        await settled()
        assert peer.seqs == [1]
        assert world.hub.engine.recovery.count == 0
