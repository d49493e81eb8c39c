"""Heartbeats, redelivery, and connections that are given up: by deadline, to the moment."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws.core import wire
from trio_ws.hub import Identity

from .peers import Peer, running, settled


def _is_ping(frame: dict[str, Any]) -> bool:
    return bool(frame["t"] == "ping")


def _is_event(frame: dict[str, Any]) -> bool:
    return bool(frame["t"] == "event")


async def test_an_idle_user_is_sent_a_heartbeat_each_idle_interval() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await trio.sleep(80)
        assert peer.times(_is_ping) == [2.0, 27.0, 52.0, 77.0]
        assert {frame["next"] for frame in peer.kinds("ping")} == {25.0}
        assert peer.dropped_at is None


async def test_an_event_makes_heartbeats_come_at_the_active_interval_for_a_while() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        await trio.sleep(10)
        await world.hub.publish("ada", "token")
        await trio.sleep(90)
        times = peer.times(_is_ping)
        assert times[:1] == [2.0]
        assert times[1:16] == [12.0 + 2 * n for n in range(15)]
        assert times[16:] == [65.0, 90.0]
        pings = peer.kinds("ping")
        assert [frame["next"] for frame in pings[1:17]] == [2.0] * 14 + [25.0] * 2
        assert pings[-1]["seq"] == 1


async def test_an_unconfirmed_critical_event_keeps_heartbeats_active() -> None:
    async with running(retry_intervals=(500.0,)) as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(99)
        assert len(peer.kinds("ping")) == 49
        peer.ack(1)
        await trio.sleep(100)
        assert len(peer.kinds("ping")) < 56


@pytest.mark.parametrize("idle_for", [5.0, 40.0, 200.0])
async def test_every_promise_of_a_next_frame_is_kept(idle_for: float) -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        for _ in range(3):
            await trio.sleep(idle_for)
            await world.hub.publish("ada", "token")
        await trio.sleep(100)
        promised, last = 2.0, 0.0
        for at, frames in peer.writes:
            assert at - last <= promised + 1e-6
            last = at
            for frame in frames:
                promised = frame.get("next", 2.0 if frame["t"] == "event" else promised)


@pytest.mark.parametrize("busy", [True, False])
async def test_a_half_open_connection_is_noticed_after_interval_and_grace(busy: bool) -> None:
    async with running() as world:
        peer = world.peer().connect()
        if not busy:
            await trio.sleep(10)
        else:
            await world.hub.publish("ada", "agent_started")
            peer.acks = True
        await settled()
        since = trio.current_time()
        peer.lives = peer.acks = False  # the cut: nothing comes back any more
        await trio.sleep(60)
        heard = 2.0 if not busy else 0.0
        interval = 25.0 if not busy else 2.0
        assert peer.dropped_at == heard + interval + 2.0
        assert since <= peer.dropped_at
        assert world.hub.engine.pool.parked == 1


async def test_an_event_on_an_idle_connection_that_is_half_open_is_noticed_within_seconds() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await trio.sleep(20)
        peer.lives = False
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(10)
        assert peer.dropped_at == 24.0


async def test_a_client_that_is_busy_with_an_event_is_asked_for_life_while_others_flow() -> None:
    """Frames that flow are no reason not to ask: until its handler is through it says nothing but that it lives."""
    async with running(retry_intervals=(100.0,)) as world:
        peer = world.peer().connect()
        for _ in range(100):
            await world.hub.publish("ada", "token")
            await trio.sleep(0.2)
        assert peer.dropped_at is None
        assert peer.kinds("ping")
        assert len(peer.seqs) == 100


async def test_a_busy_client_that_acks_is_not_asked() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        for _ in range(100):
            await world.hub.publish("ada", "token")
            await trio.sleep(0.2)
        assert peer.kinds("ping") == []


async def test_any_frame_is_a_sign_of_life() -> None:
    async with running() as world:
        peer = world.peer().connect()
        peer.lives = False
        for _ in range(50):
            await trio.sleep(3)
            peer.say(wire.PING)
        assert peer.dropped_at is None
        assert len(peer.kinds("pong")) == 50


async def test_a_plain_client_is_sent_signs_of_life_at_the_idle_interval() -> None:
    async with running() as world:
        peer = world.peer(plain=True, lives=False).connect()
        assert peer.expected_by == 27.0
        await trio.sleep(10)
        assert peer.signs == 0
        await trio.sleep(70)
        assert peer.signs == 3
        assert peer.frames == []
        assert peer.attachment is not None
        peer.attachment.heard(trio.current_time())
        assert peer.expected_by == 107.0


# -- redelivery


async def test_an_unacked_critical_event_is_sent_again_on_schedule_and_then_given_up() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await trio.sleep(1)
        await world.hub.publish("ada", "token")
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(30)
        critical = peer.times(lambda f: _is_event(f) and f["seq"] == 2)
        assert critical == [1.0, 1.5, 2.0, 3.0, 6.0]
        assert [f.get("retry", 0) for f in peer.kinds("event") if f["seq"] == 2] == [0, 1, 2, 3, 4]
        assert peer.seqs.count(1) == 1
        assert peer.told == (4501, "nothing was acked through all redeliveries", None)
        delivery = world.hub.stats()["delivery"]
        assert delivery["redelivered"] == 4
        assert delivery["messages_timeout"] == 1
        assert world.hub.engine.pool.parked == 1
        assert world.hub.describe("ada")["buffer"]["critical_unconfirmed"] == 1  # type: ignore[index]


async def test_giving_up_is_five_seconds_after_the_last_try() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(9.999)
        assert peer.code is None
        await trio.sleep(0.001)
        await settled()
        assert peer.code == 4501


async def test_only_the_oldest_unacked_one_is_sent_again() -> None:
    async with running() as world:
        peer = world.peer().connect()
        for _ in range(3):
            await world.hub.publish("ada", "agent_started")
        await trio.sleep(0.6)
        assert peer.seqs == [1, 2, 3, 1]
        peer.ack(1)
        await trio.sleep(0.5)
        assert peer.seqs == [1, 2, 3, 1, 2]
        peer.ack(3)
        await trio.sleep(10)
        assert peer.seqs == [1, 2, 3, 1, 2]
        assert peer.code is None


async def test_what_the_transport_has_not_taken_is_not_sent_again() -> None:
    async with running() as world:
        peer = world.peer().connect()
        peer.room = 0
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(3)
        assert peer.seqs == [1]
        peer.take_all()
        await settled()
        assert peer.seqs == [1, 1]
        assert peer.kinds("event")[-1]["retry"] == 1


async def test_what_is_not_critical_is_not_sent_again() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "token")
        await trio.sleep(60)
        assert peer.seqs == [1]
        assert peer.code is None


async def test_a_nack_has_an_event_sent_again_at_once_and_then_after_a_while() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "token")
        await settled()
        for _ in range(2):
            peer.say(wire.nack(1))
            await trio.sleep(0.6)
        assert peer.times(_is_event) == pytest.approx([0.0, 0.0, 1.1], abs=1e-3)
        assert [frame.get("retry", 0) for frame in peer.kinds("event")] == [0, 1, 2]


async def test_a_redelivery_after_a_resume_comes_with_the_new_connection() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(0.3)
        peer.die()
        await trio.sleep(10)
        assert peer.seqs == [1]
        again = peer.again(0)
        await settled()
        assert again.times(_is_event) == pytest.approx([10.3])
        await trio.sleep(0.6)
        assert again.times(_is_event) == pytest.approx([10.3, 10.8])
        assert again.kinds("event")[-1]["retry"] == 1


# -- mistakes and credentials


async def test_a_mistake_is_answered_and_the_tenth_closes() -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "token")
        await settled()
        mistakes = [
            wire.ack(2),
            wire.nack(1_000),
            wire.hello(),
            b'{"t":"what"}',
            b'{"t":"ack"}',
            b'{"t":"ack","seq":-1}',
            b'{"t":"ack","seq":1.5}',
            b'{"t":"message","id":7}',
            b"{}",
        ]
        for count, mistake in enumerate(mistakes, 1):
            peer.say(mistake)
            errors = peer.kinds("error")
            assert len(errors) == count
            assert (errors[-1]["code"], errors[-1]["fatal"]) == (4400, False)
        assert "hello was said already" in errors[2]["reason"]
        assert world.hub.engine.books.settled == 0
        peer.ack(1)
        assert world.hub.engine.books.settled == 1
        peer.say(wire.ack(2))
        assert peer.code == 4400
        assert world.hub.stats()["connections"]["mistakes"] == 10
        await settled()
        assert world.hub.engine.pool.connected == 0
        assert world.hub.engine.pool.parked == 1


@pytest.mark.parametrize("message", [b"no json", b"7", b"[]", b'["x"]', b"\xff"])
async def test_what_is_no_frame_closes_at_once(message: bytes) -> None:
    async with running() as world:
        peer = world.peer().connect()
        peer.say(message)
        assert peer.code == 4400
        await settled()
        assert world.hub.engine.pool.connected == 0


async def test_a_batch_is_handled_in_order_and_what_follows_a_bye_is_not() -> None:
    async with running() as world:
        peer = world.peer().connect()
        for _ in range(2):
            await world.hub.publish("ada", "agent_started")
        await settled()
        peer.say(wire.batch([wire.ack(1), wire.BYE, wire.ack(2), wire.PING]))
        assert peer.code == 1000
        assert world.hub.engine.books.settled == 1
        assert peer.kinds("pong") == []
        assert world.hub.engine.pool.parked == 0


async def test_a_frame_whose_handling_fails_ends_its_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        peer, other = world.peer().connect(), world.peer("bob", acks=True).connect()

        def fail(*args: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(world.hub.reception.inbox, "put", fail)
        peer.say(wire.message("m", "hi", b"null"))
        assert peer.code == 4500
        assert "handling a frame failed" in caplog.text
        await world.hub.publish("bob", "token")
        await settled()
        assert other.seqs == [1]


async def test_the_end_of_a_token_closes() -> None:
    async with running() as world:
        peer = world.peer().connect(expires=1e9 + 60)
        assert peer.welcome["expires"] == 1e9 + 60
        await trio.sleep(59.9)
        assert peer.code is None
        await trio.sleep(0.2)
        assert peer.told == (4401, "the token has expired", None)
        assert world.hub.engine.pool.parked == 1


async def test_a_fresh_token_in_time_prevents_it() -> None:
    async with running() as world:
        peer = world.peer().connect(expires=1e9 + 60)
        await trio.sleep(50)
        peer.say(wire.auth("fresh"))
        assert peer.tokens == ["fresh"]
        assert peer.attachment is not None
        peer.attachment.renew(Identity("ada", 1e9 + 120))
        await trio.sleep(69)
        assert peer.code is None
        await trio.sleep(2)
        assert peer.code == 4401


async def test_a_token_that_ends_sooner_than_the_one_before_counts() -> None:
    async with running() as world:
        peer = world.peer().connect()
        assert peer.attachment is not None
        peer.attachment.renew(Identity("ada", 1e9 + 5))
        await trio.sleep(5.1)
        assert peer.code == 4401


async def test_even_a_stalled_connection_ends_with_its_token() -> None:
    async with running(stall_timeout=30) as world:
        peer: Peer = world.peer(lives=False).connect(expires=1e9 + 10)
        peer.room = 0
        await world.hub.publish("ada", "token")
        await trio.sleep(10.1)
        assert peer.code == 4401
