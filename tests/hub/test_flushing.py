"""What is written when, and how much at once: bursts, the batch window, fairness, backpressure, and links that fail."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio

from trio_ws.event import Priority
from trio_ws.hub import attachment
from trio_ws.hub.acceptance import COMPANY
from trio_ws.hub.flusher import TURN, Flusher

from .peers import Peer, World, running, settled


def _event_writes(peer: Peer) -> list[tuple[float, list[int]]]:
    """When which events were written."""
    found = [(at, [f["seq"] for f in frames if f["t"] == "event"]) for at, frames in peer.writes]
    return [(at, seqs) for at, seqs in found if seqs]


async def _connected(world: World, **options: Any) -> Peer:
    """A peer whose welcome was written a while ago."""
    peer = world.peer(**options).connect()
    await trio.sleep(1)
    return peer


async def test_what_is_published_in_one_turn_goes_out_in_one_write() -> None:
    async with running() as world:
        peer = await _connected(world)
        for _ in range(10):
            world.hub.publish_nowait("ada", "token")
        await settled()
        assert _event_writes(peer) == [(1.0, list(range(1, 11)))]


async def test_a_busy_connection_waits_for_the_end_of_the_batch_window() -> None:
    async with running(batch_interval=0.05) as world:
        peer = await _connected(world)
        for _ in range(10):
            await world.hub.publish("ada", "token")
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert [at for at, _ in _event_writes(peer)] == pytest.approx([1.0, 1.05, 1.1])
        assert peer.seqs == list(range(1, 11))


async def test_what_would_wait_for_hardly_any_time_is_written_at_once() -> None:
    async with running(batch_interval=0.05) as world:
        peer = await _connected(world)
        for seconds in (0.041, 0.039, 0.1):
            await world.hub.publish("ada", "token")
            await trio.sleep(seconds)
        assert [at for at, _ in _event_writes(peer)] == pytest.approx([1.0, 1.041, 1.091])


async def test_a_critical_event_takes_all_that_waits_before_it_along_at_once() -> None:
    async with running() as world:
        peer = await _connected(world)
        await world.hub.publish("ada", "token")
        await settled()
        await world.hub.publish("ada", "token")
        await trio.sleep(0.01)
        await world.hub.publish("ada", "agent_completed")
        await settled()
        assert _event_writes(peer) == [(1.0, [1]), (1.01, [2, 3])]


async def test_with_confirm_an_event_is_as_urgent_as_a_critical_one() -> None:
    async with running() as world:
        peer = await _connected(world)
        await world.hub.publish("ada", "token")
        await settled()
        await world.hub.publish("ada", "token", confirm=True)
        await settled()
        assert _event_writes(peer) == [(1.0, [1]), (1.0, [2])]
        assert "critical" not in peer.kinds("event")[1]
        peer.ack(2)


async def test_without_a_window_nothing_waits() -> None:
    async with running(batch_interval=0) as world:
        peer = await _connected(world)
        for _ in range(3):
            await world.hub.publish("ada", "token")
            await settled()
        assert [seqs for _, seqs in _event_writes(peer)] == [[1], [2], [3]]


async def test_one_window_serves_all_that_wait() -> None:
    async with running() as world:
        peers = [world.peer(user).connect() for user in "abcde"]
        await trio.sleep(1)
        for _ in range(2):
            await world.hub.broadcast("*", "token")
            await settled()
        for peer in peers:
            assert peer.seqs == [1]
        await trio.sleep(0.051)
        assert [peer.seqs for peer in peers] == [[1, 2]] * 5
        assert not world.hub.engine.flusher._waiting


class _Connection:
    """Something to flush that notes when its turn came."""

    def __init__(self, log: list[object]) -> None:
        self.marked = self.waiting = False
        self.written_at = float("-inf")
        self.log = log

    def flush(self, now: float) -> None:
        self.log.append(self)


async def test_others_run_between_so_many_connections() -> None:
    log: list[object] = []
    flusher = Flusher(0.05, trio.current_time, lambda at: None)
    for _ in range(3 * TURN):
        flusher.mark(_Connection(log), urgent=True)

    async def other() -> None:
        for _ in range(4):
            log.append(None)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        nursery.start_soon(other)
        await settled()
        nursery.cancel_scope.cancel()
    assert len(log) == 3 * TURN + 4
    turns = [at for at, who in enumerate(log) if who is None]
    assert all(after - before <= 2 * TURN + 1 for before, after in itertools.pairwise(turns))
    assert turns[-1] >= 2 * TURN


async def test_marking_twice_flushes_once() -> None:
    log: list[object] = []
    armed: list[float] = []
    flusher = Flusher(0.05, lambda: 0.0, armed.append)
    connection = _Connection(log)
    connection.written_at = 0.0
    for urgent in (False, False, True, True, False):
        flusher.mark(connection, urgent=urgent)
    assert armed == [0.05]
    assert not connection.waiting
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await settled()
        nursery.cancel_scope.cancel()
    assert log == [connection]


async def test_a_link_that_refuses_is_given_no_more_until_it_has_drained() -> None:
    async with running() as world:
        peer = await _connected(world, acks=True)
        peer.room = 0
        world.hub.publish_nowait("ada", "agent_started")
        await settled()
        assert peer.seqs == [1]
        for _ in range(5):
            await world.hub.publish("ada", "agent_thinking")
        await trio.sleep(1)
        assert peer.seqs == [1]
        assert world.hub.describe("ada")["sessions"][0]["blocked"] is True  # type: ignore[index]
        peer.take_all()
        await settled()
        assert peer.seqs == [1, 2, 3, 4, 5, 6]


async def test_a_backlog_goes_out_in_chunks_as_the_link_takes_it() -> None:
    async with running() as world:
        for _ in range(40):
            await world.hub.publish("ada", "token", "x" * 10_000)
        peer = world.peer()
        peer.room = 0
        peer.connect()
        await settled()
        sizes = []
        while len(peer.seqs) < 40:
            before = len(peer.seqs)
            peer.take_all(room=0)
            await settled()
            sizes.append(peer.took)
            assert len(peer.seqs) > before
        assert len(sizes) == 6
        assert max(sizes) < attachment.CHUNK + 11_000


async def test_a_link_that_takes_all_is_given_a_backlog_in_chunks_with_turns_for_others() -> None:
    async with running() as world:
        for _ in range(40):
            await world.hub.publish("ada", "token", "x" * 10_000)
        peer = world.peer().connect()
        other = world.peer("bob").connect()
        await settled()
        assert len(_event_writes(peer)) == 6
        assert peer.seqs == list(range(1, 41))
        assert other.kinds("live")


async def test_a_stuck_link_costs_nobody_else_anything() -> None:
    async with running(max_events_per_user=3) as world:
        stuck, fine = await _connected(world), await _connected(world, acks=True)
        stuck.room = 0
        for n in range(20):
            with trio.fail_after(0.01):
                receipt = await world.hub.publish("ada", "agent_thinking", n)
            await settled()
            assert (await receipt.confirmed()).after < 0.01
        assert fine.seqs == list(range(1, 21))
        stuck.take_all()
        await settled()
        assert stuck.kinds("gap")[0]["reason"] == "settled"
        assert stuck.cursor == 20


async def test_a_link_that_takes_nothing_for_the_stall_timeout_is_closed() -> None:
    async with running(stall_timeout=30) as world:
        peer = await _connected(world, lives=False)
        peer.room = 0
        world.hub.publish_nowait("ada", "agent_started")
        await trio.sleep(29.9)
        assert peer.code is None
        await trio.sleep(0.2)
        assert peer.told == (4502, "nothing was taken for 30 s", None)
        assert world.hub.engine.pool.parked == 1
        assert len(peer.frames) == 3


async def test_a_link_that_took_something_in_between_is_not_closed() -> None:
    async with running(stall_timeout=30) as world:
        peer = await _connected(world, lives=False)
        for _ in range(3):
            peer.room = 0
            world.hub.publish_nowait("ada", "token")
            await trio.sleep(20)
            peer.take_all()
        assert peer.code is None


async def test_who_asks_on_and_on_and_takes_no_answers_is_closed() -> None:
    async with running() as world:
        peer = await _connected(world)
        peer.room = 0
        asked = 0
        while peer.code is None and asked < 100_000:
            peer.say(b'{"t":"ping"}')
            asked += 1
        assert peer.told == (4502, "answers are not taken", None)
        assert asked * len(b'{"t":"pong"}') < attachment.CHUNK + 100


async def test_answers_are_counted_anew_when_they_were_taken() -> None:
    async with running() as world:
        peer = await _connected(world)
        for _ in range(3):
            peer.room = 0
            for _ in range(4000):
                peer.say(b'{"t":"ping"}')
            peer.take_all()
        assert peer.code is None
        assert len(peer.kinds("pong")) == 12_000


async def test_a_link_that_raises_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        broken, fine = world.peer().connect(), await _connected(world, acks=True)
        broken.failure = ZeroDivisionError()
        world.hub.publish_nowait("ada", "agent_started")
        await settled()
        assert fine.seqs == [1]
        assert "sending to a session failed" in caplog.text
        assert broken.attachment is not None
        assert broken.attachment.fenced
        await world.hub.publish("ada", "agent_completed")
        await settled()
        assert fine.seqs == [1, 2]


async def test_a_link_that_raises_once_is_closed_with_an_internal_error() -> None:
    async with running() as world:
        peer = await _connected(world)

        def fail(frames: list[bytes]) -> bool:
            del peer.send
            raise ZeroDivisionError

        peer.send = fail  # type: ignore[method-assign]
        world.hub.publish_nowait("ada", "agent_started")
        await settled()
        assert peer.code == 4500


async def test_a_link_that_raises_in_a_timer_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        broken, fine = world.peer(lives=False).connect(), world.peer().connect()
        await settled()
        broken.failure = ZeroDivisionError()
        await trio.sleep(60)
        assert "a session's timer failed" in caplog.text
        assert len(fine.kinds("ping")) == 3
        assert world.hub.engine.pool.connected == 1


async def test_a_slow_session_is_sent_deltas_as_one() -> None:
    async with running() as world:
        peer = await _connected(world)
        for char in "abc":
            await world.hub.publish("ada", "token", {"text": char}, merge="append")
            await settled()
        await world.hub.publish("ada", "token", "last", priority=Priority.LOW)
        await trio.sleep(0.1)
        payloads = [event["payload"] for event in peer.kinds("event")]
        assert payloads == [{"text": "a"}, {"text": "bc"}, "last"]
        assert peer.kinds("event")[1]["merged"] == {"from": 2, "n": 1}


async def test_a_burst_beyond_the_bounds_costs_a_connection_that_takes_it_nothing() -> None:
    async with running(max_events_per_user=50) as world:
        peer = await _connected(world)
        for _ in range(300):
            world.hub.publish_nowait("ada", "note")
        await settled()
        assert peer.seqs == list(range(1, 301))
        assert peer.kinds("gap") == []


async def test_a_burst_beyond_the_bounds_in_all_costs_it_nothing_either() -> None:
    async with running(max_events=50, max_events_per_user=200) as world:
        peer = await _connected(world)
        for _ in range(300):
            world.hub.publish_nowait("ada", "note")
        await settled()
        assert peer.seqs == list(range(1, 301))


async def test_who_does_not_take_it_is_told_of_a_burst_by_a_gap() -> None:
    async with running(max_events_per_user=50) as world:
        peer = await _connected(world)
        peer.room = 0
        for _ in range(300):
            world.hub.publish_nowait("ada", "note")
        peer.take_all()
        await settled()
        (gap,) = peer.kinds("gap")
        assert (gap["to"], gap["reason"]) == (250, "evicted")
        assert peer.seqs[-50:] == list(range(251, 301))


@pytest.mark.pure
async def test_a_connection_that_fails_on_what_waits_does_not_hold_the_publisher(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(max_events_per_user=5) as world:
        await _connected(world)
        monkeypatch.setattr(attachment.Session, "take", lambda *_: 1 // 0)
        for _ in range(10):
            world.hub.publish_nowait("ada", "note")
        assert world.hub.stats()["delivery"]["events_accepted"] == 10
        await settled()
        assert "sending to a session failed" in caplog.text
        caplog.clear()


async def test_so_many_do_not_wait_for_the_window() -> None:
    async with running(batch_interval=10.0) as world:
        peer = await _connected(world)
        await world.hub.publish("ada", "note")
        await settled()
        for _ in range(COMPANY):
            world.hub.publish_nowait("ada", "note")
        await settled()
        assert len(peer.seqs) == COMPANY + 1
        assert trio.current_time() == 1.0
