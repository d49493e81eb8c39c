"""Events on their way to the application: order, acks, repeats, gaps, handing back, and the bounded inbox."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.client import SavedSession
from trio_ws.client.inbox import MAX_BYTES, MAX_ITEMS, REDO_AFTER
from trio_ws.errors import LocalError, SessionEnded
from trio_ws.event import Event, Gap, Merged

from .scripted import Server, event, gap


async def test_events_come_in_order_with_all_they_carry(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(
            event(1, "agent_started", critical=True),
            event(4, merged={"from": 2, "n": 2}, truncated=True, retry=1),
        )
        assert await client.receive() == Event(
            seq=1, id="id1", type="agent_started", payload={"n": 1}, ts=1.0, critical=True
        )
        assert await client.receive() == Event(
            seq=4,
            id="id4",
            type="token",
            payload={"n": 4},
            ts=1.0,
            retry=1,
            merged=Merged(from_seq=2, n=2),
            truncated=True,
        )
        await peer.close(1000)


async def test_the_loop_ends_after_what_had_arrived_when_the_server_closes_normally(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await peer.close(1000)
        assert [e.seq async for e in client] == [1, 2]
        assert client.state.name == "ended"
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
    assert len(server.attempts) == 1


async def test_one_task_receives(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive()
        nursery.cancel_scope.cancel()


async def test_cancelling_receive_loses_nothing(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await wait_all_tasks_blocked()
        assert (await client.receive()).seq == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        assert scope.cancelled_caught
        assert (await client.receive()).seq == 2
        await peer.close(1000)


# --- Acks ---


async def test_an_event_is_acked_when_the_loop_comes_back(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await client.receive()
        await client.receive()
        await trio.sleep(60)
        assert client.statistics().acks == 1, "2 is still in work"
        assert await peer.expect("ack") == {"t": "ack", "seq": 1}
        nursery.start_soon(client.receive)
        now = trio.current_time()
        assert await peer.expect("ack") == {"t": "ack", "seq": 2}
        assert trio.current_time() - now == pytest.approx(0.05)
        nursery.cancel_scope.cancel()


async def test_acks_wait_for_company_at_most_the_delay_after_the_first(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session(ack={"events": 32, "delay": 0.5})
        await peer.send(*(event(n) for n in range(1, 6)))
        began = trio.current_time()
        for _ in range(4):
            await client.receive()
            await trio.sleep(0.125)
        assert await peer.expect("ack") == {"t": "ack", "seq": 3}
        assert trio.current_time() - began == pytest.approx(0.625)  # 0.125, when 1 was processed, and 0.5
        await peer.close(1000)


async def test_so_many_events_are_acked_at_once(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session(ack={"events": 3, "delay": 10})
        await peer.send(*(event(n) for n in range(1, 6)))
        began = trio.current_time()
        for _ in range(4):
            await client.receive()
        assert await peer.expect("ack") == {"t": "ack", "seq": 3}
        assert trio.current_time() == began
        await peer.close(1000)


async def test_a_critical_event_with_nothing_behind_it_is_acked_at_once(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session(ack={"events": 32, "delay": 10})
        await peer.send(event(1, critical=True), event(2, critical=True))
        await client.receive()
        await client.receive()
        assert client.statistics().acks == 0, "2 was waiting when 1 was processed"
        began = trio.current_time()
        nursery.start_soon(client.receive)
        assert await peer.expect("ack") == {"t": "ack", "seq": 2}
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_who_only_looks_on_acks_nothing(server: Server, clock: MockClock) -> None:
    async with server.connect(ack=False) as client:
        peer = await server.session()
        await peer.send(event(1, critical=True), event(2))
        await client.receive()
        await client.nack(await client.receive())
        assert (await client.receive()).seq == 2
        await trio.sleep(60)
        peer.cut()
        peer, hello = await server.hello()
        assert hello["seq"] == 2, "what was received need not be sent again"
        await peer.welcome(2, resumed=True)
        await peer.ping()
        await peer.expect("pong")
        saved = client.saved()
        assert saved is not None
        assert saved.seq == 1
        await peer.close(1000)
    assert client.statistics().acks == 0


async def test_a_resume_acks_again_what_was_processed(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2), event(3))
        for _ in range(3):
            await client.receive()
        peer.cut()  # 1 and 2 are processed, and not acked yet
        peer, hello = await server.hello()
        assert hello["seq"] == 3
        await peer.welcome(3, resumed=True)
        assert await peer.expect("ack") == {"t": "ack", "seq": 2}
        await peer.close(1000)


async def test_a_new_session_owes_no_ack_for_where_it_starts(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session(5)
        assert peer.greeting == [{"t": "pong"}]
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(7, resumed=False, epoch="e2")
        await peer.ping()
        await peer.expect("pong")
        await peer.send(event(8))
        assert (await client.receive()).seq == 8
        await peer.close(1000)


# --- Repeats ---


async def test_repeats_are_dropped_and_counted(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2), event(1, retry=1), event(2, retry=1), event(3))
        await peer.close(1000)
        assert [e.seq async for e in client] == [1, 2, 3]
    assert client.statistics().duplicates == 2
    assert client.statistics().events == 3
    assert client.statistics().violations == 0


async def test_what_was_received_survives_a_cut_and_is_given_once(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2), event(3))
        assert (await client.receive()).seq == 1
        peer.cut()
        peer, hello = await server.hello()
        assert (hello["session"], hello["epoch"], hello["seq"]) == ("s1", "e1", 3)
        await peer.welcome(3, resumed=True)
        await peer.send(event(2, retry=1), event(4), {"t": "live", "seq": 4})
        await peer.close(1000)
        assert [e.seq async for e in client] == [2, 3, 4]


# --- Gaps ---


async def test_gaps_are_told_in_their_place(server: Server, clock: MockClock) -> None:
    told: list[object] = []
    async with server.connect(on_gap=told.append) as client:
        peer = await server.session()
        await peer.send(
            event(1), gap(2, 4, "expired", critical=1, lost={"x": 2, "agent_started": 1}), event(5), gap(6, 6)
        )
        await peer.close(1000)
        async for e in client:
            told.append(e.seq)
    first = Gap(first=2, last=4, reason="expired", lost={"x": 2, "agent_started": 1}, critical=1)
    second = Gap(first=6, last=6, reason="evicted", lost={"token": 1})
    assert told == [1, first, 5, second]
    assert client.gaps == (first, second)
    assert client.statistics().gaps == 2


async def test_a_gap_is_acked_like_an_event(server: Server, clock: MockClock) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        nursery.start_soon(client.receive)
        await peer.send(gap(1, 4))
        assert await peer.expect("ack") == {"t": "ack", "seq": 4}
        nursery.cancel_scope.cancel()


async def test_what_on_gap_raises_leaves_receive(server: Server, clock: MockClock) -> None:
    class Oops(Exception):
        pass

    def oops(gap: Gap) -> None:
        raise Oops

    async with server.connect(on_gap=oops) as client:
        peer = await server.session()
        await peer.send(gap(1, 1), event(2))
        with pytest.raises(Oops):
            await client.receive()
        assert (await client.receive()).seq == 2
        await peer.close(1000)


async def test_a_reset_is_a_gap_and_begins_anew(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session(0, head=0)
        await peer.send(event(1), event(2), {"t": "ping", "seq": 5, "next": 1e6})
        assert (await client.receive()).seq == 1
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(0, resumed=False, epoch="e2", session="s2", head=2)
        # id2 is the event that was received as 2 of the old epoch, and waits.
        await peer.send(event(1, id="id2"), event(2, id="new"), {"t": "live", "seq": 2}, event(3, id="id2"))
        assert [(await client.receive()).id for _ in range(3)] == ["id2", "new", "id2"]
        assert client.gaps == (Gap(first=3, last=5, reason="reset", lost={}, anew=True),)
        assert (await peer.until("ack"))[-1] == {"t": "ack", "seq": 2}, "acks are of the new epoch"
        saved = client.saved()
        assert saved == SavedSession(session="s2", epoch="e2", seq=2)
        await peer.close(1000)
    figures = client.statistics()
    assert (figures.resets, figures.duplicates, figures.gaps) == (1, 1, 1)


async def test_what_was_known_already_is_acked_though_it_is_not_given(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client, trio.open_nursery() as nursery:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await client.receive()
        await client.receive()
        peer.cut()
        peer, _ = await server.hello()
        nursery.start_soon(client.receive)
        await peer.welcome(0, resumed=False, epoch="e2", head=1)
        await peer.send(event(1, id="id2", critical=True))
        assert await peer.expect("ack") == {"t": "ack", "seq": 1}
        assert client.statistics().given == 2
        nursery.cancel_scope.cancel()


# --- Handing back ---


async def test_a_nacked_event_comes_again_first_when_the_server_redelivers(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(3, merged={"from": 2, "n": 1}), event(4))
        await client.receive()
        failed = await client.receive()
        await client.nack(failed)
        assert await peer.expect("ack") == {"t": "ack", "seq": 1}
        assert await peer.expect("nack") == {"t": "nack", "seq": 3}
        await trio.sleep(1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            received: list[Event] = []

            async def receive() -> None:
                received.append(await client.receive())

            nursery.start_soon(receive)
            await trio.sleep(1)
            assert received == [], "it waits for the server"
            # Redelivered without the delta that was merged in: what is given is what came first.
            await peer.send(event(3, retry=2))
        assert trio.current_time() - began == pytest.approx(1)
        assert received[0].retry == 2
        assert received[0].merged == Merged(from_seq=2, n=1)
        assert (await client.receive()).seq == 4
        assert await peer.expect("ack") == {"t": "ack", "seq": 3}
        await peer.close(1000)
    figures = client.statistics()
    assert (figures.events, figures.given, figures.nacks, figures.duplicates) == (3, 4, 1, 0)


async def test_a_nacked_event_comes_again_without_the_server_too(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await client.nack(await client.receive())
        peer.cut()
        began = trio.current_time()
        again = await client.receive()
        assert (again.seq, again.retry) == (1, 1)
        assert trio.current_time() - began == pytest.approx(REDO_AFTER)
        await client.nack(again)
        again = await client.receive()
        assert (again.seq, again.retry) == (1, 2)
        assert (await client.receive()).seq == 2


async def test_a_nack_is_told_again_after_a_resume(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await client.nack(await client.receive())
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(2, resumed=True)
        assert await peer.expect("nack") == {"t": "nack", "seq": 1}
        await peer.send(event(1, retry=1))
        assert (await client.receive()).seq == 1
        assert (await client.receive()).seq == 2
        await peer.close(1000)


async def test_a_nack_of_an_earlier_epoch_is_not_told(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1))
        await client.nack(await client.receive())
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(0, resumed=False, epoch="e2")
        await peer.ping()
        await peer.expect("pong")
        assert (await client.receive()).id == "id1"
        await peer.close(1000)


async def test_an_event_of_an_earlier_epoch_can_be_handed_back_but_that_is_not_told(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1))
        in_hand = await client.receive()
        peer.cut()
        peer, _ = await server.hello()
        await peer.welcome(3, resumed=False, epoch="e2", heartbeat={"active": 100})
        await wait_all_tasks_blocked()
        await client.nack(in_hand)
        assert (await client.receive()).id == "id1"
        await peer.ping()
        await peer.expect("pong")
        await peer.close(1000)


async def test_what_was_handed_back_is_given_again_though_the_session_has_ended(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        await client.nack(await client.receive())
        await peer.fail(4403)
        assert (await client.receive()).seq == 1
        assert (await client.receive()).seq == 2
        with pytest.raises(SessionEnded):
            await client.receive()


async def test_only_the_last_event_can_be_handed_back_and_once(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1), event(2))
        first = await client.receive()
        second = await client.receive()
        with pytest.raises(LocalError):
            await client.nack(first)
        await client.nack(second)
        with pytest.raises(LocalError):
            await client.nack(second)
        await peer.close(1000)


# --- The bounded inbox ---


async def test_a_full_inbox_stops_the_reading_and_not_the_signs_of_life(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session(heartbeat={"active": 2.0}, ack={"events": 10_000, "delay": 1000})
        for seq in range(1, MAX_ITEMS + 51):
            await peer.send(event(seq))
        await wait_all_tasks_blocked()
        assert client.statistics().queued == MAX_ITEMS
        began = trio.current_time()
        await peer.expect("ping")
        await peer.expect("ping")
        assert trio.current_time() - began == pytest.approx(4)
        await trio.sleep(100)
        assert client.state.name == "live", "who does not listen does not mistake that for silence"
        # It goes on when half of it is gone, not for each event.
        for _ in range(MAX_ITEMS // 2 - 1):
            await client.receive()
        await wait_all_tasks_blocked()
        assert client.statistics().queued == MAX_ITEMS // 2 + 1
        for _ in range(MAX_ITEMS // 2 + 51):
            await client.receive()
        assert client.statistics().queued == 0
        assert client.statistics().reconnects == 0
        await peer.close(1000)


async def test_after_a_rest_silence_counts_again(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session(heartbeat={"active": 2.0}, ack={"events": 10_000, "delay": 1000})
        for seq in range(1, MAX_ITEMS + 1):
            await peer.send(event(seq))
        await wait_all_tasks_blocked()
        await trio.sleep(9.5)
        for _ in range(MAX_ITEMS):
            await client.receive()
        began = trio.current_time()
        assert [frame["t"] for frame in await peer.until("ping")][-1] == "ping"
        while await peer.receive() is not None:
            pass
        assert trio.current_time() - began == pytest.approx(4)


async def test_the_inbox_is_bounded_in_bytes_too(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        for seq in range(1, 9):
            await peer.send(event(seq, payload="x" * (MAX_BYTES // 4)))
        await wait_all_tasks_blocked()
        assert client.statistics().queued == 4
        for _ in range(8):
            await client.receive()
        assert client.statistics().queued_bytes == 0
        await peer.close(1000)


async def test_a_cut_while_the_reading_rests_is_made_good(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        for seq in range(1, MAX_ITEMS + 11):
            await peer.send(event(seq))
        await wait_all_tasks_blocked()
        peer.cut()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def resume() -> None:
                peer, hello = await server.hello()
                at = hello["seq"]
                await peer.welcome(at, resumed=True, head=MAX_ITEMS + 20)
                for seq in range(at + 1, MAX_ITEMS + 21):
                    await peer.send(event(seq))
                await peer.close(1000)

            assert [e.seq async for e in client] == list(range(1, MAX_ITEMS + 21))
