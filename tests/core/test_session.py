"""One tab's cursor: where it starts and goes on from, what it is given, and when what is in flight is sent again."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trio_ws.core.entry import EVICTED, EXPIRED, FIRM, SETTLED, SUPERSEDED
from trio_ws.core.flight import PATIENCE
from trio_ws.core.session import Impossible, Session

from .world import PLENTY, World, held


def edge_world() -> tuple[World, Session]:
    """A log whose seqs 1 to 4 have been evicted (low is 4), 5 to 8 are held (head is 8), and a parked session at 0."""
    world = World(max_events_per_user=4, max_events=4)
    tab = world.connect()
    world.pool.park(tab, world.now)
    for _ in range(8):
        world.publish()
    assert (world.ada.low, world.ada.head) == (4, 8)
    return world, tab


# -- the edges of recovery


@pytest.mark.parametrize("known", [True, False], ids=["known session", "expired session"])
@pytest.mark.parametrize(
    ("seq", "given"),
    [
        (0, [(1, 4, EVICTED), 5, 6, 7, 8]),
        (2, [(3, 4, EVICTED), 5, 6, 7, 8]),  # low - 2
        (3, [(4, 4, EVICTED), 5, 6, 7, 8]),  # low - 1
        (4, [5, 6, 7, 8]),  # low
        (5, [6, 7, 8]),
        (7, [8]),  # head - 1
        (8, []),  # head
    ],
)
def test_a_resume_goes_on_right_after_the_clients_cursor(known: bool, seq: int, given: list[Any]) -> None:
    world, tab = edge_world()
    id = tab.id
    if not known:
        world.pool.end(tab, world.now)
    back = world.connect(session=id, epoch=world.ada.epoch, seq=seq)
    assert (back is tab) == known
    assert back.cursor == seq
    assert world.seqs(back) == given
    assert back.acked == 0 if known else back.acked <= seq


def test_a_resume_above_the_head_is_none() -> None:
    world, tab = edge_world()
    admitted = world.ask(session=tab.id, epoch=world.ada.epoch, seq=9)
    assert not admitted.resumed  # type: ignore[union-attr]
    back = world.connect(session=tab.id, epoch=world.ada.epoch, seq=9)
    assert back is not tab
    assert world.seqs(back) == [5, 6, 7, 8]


@pytest.mark.parametrize("seq", [0, 1])
def test_recovery_from_an_empty_log(seq: int) -> None:
    world = World()
    admitted = world.ask(session="x", epoch=world.ada.epoch, seq=seq)
    assert admitted.resumed == (seq == 0)  # type: ignore[union-attr]
    tab = world.connect(session="x", epoch=world.ada.epoch, seq=seq)
    assert tab.cursor == 0
    assert world.take(tab) == [{"t": "live", "seq": 0}]
    world.publish()
    assert world.seqs(tab) == [1]


def test_a_resume_below_what_was_acked_goes_on_from_there() -> None:
    world = World()
    tab = world.connect()
    for _ in range(4):
        world.publish()
    world.take(tab)
    tab.ack(3, world.now)
    world.pool.park(tab, world.now)
    world.come_back(tab, 1)
    assert tab.cursor == 3
    assert world.seqs(tab) == [4]


def test_what_was_in_flight_is_given_again_from_where_the_client_is() -> None:
    world = World()
    tab = world.connect()
    for _ in range(4):
        world.publish()
    world.take(tab)
    tab.ack(1, world.now)
    world.pool.park(tab, world.now)
    world.come_back(tab, 2)
    assert tab.acked == 1
    assert world.seqs(tab) == [3, 4]
    assert (world.books.sent, world.books.redelivered) == (4, 2)
    assert tab.ack(4, world.now)
    assert world.books.settled == 4


def test_a_cursor_amid_joined_deltas_goes_back_to_their_start() -> None:
    world = World(max_events_per_user=3, max_events=3)
    world.critical()
    for _ in range(3):
        world.delta("text")
    world.delta("text")
    assert held(world.ada) == [1, (2, 4), 5]
    tab = world.connect(session="x", epoch=world.ada.epoch, seq=3)
    assert (tab.cursor, tab.acked) == (1, 1)
    assert [(f["seq"], f["payload"]) for f in world.take(tab)[:1]] == [(5, "text" * 4)]
    assert tab.owes(world.ada.entries[2])
    tab.ack(5, world.now)
    assert world.books.settled == 4, "what lies below its start is not its to confirm"


def test_what_lies_below_the_cursor_of_a_resumed_stranger_stays_pending() -> None:
    world = World()
    tab = world.connect()
    first, second = world.critical(), world.critical()
    world.take(tab)
    world.pool.end(tab, world.now)
    back = world.connect(session=tab.id, epoch=world.ada.epoch, seq=1)
    assert world.seqs(back) == [2]
    back.ack(2, world.now)
    assert (first.state, second.state) == ("sent", SETTLED)
    assert world.seqs(world.connect(start="pending"))[0] == 1


# -- where a new session starts


def test_retained_replays_history_pending_only_what_nobody_confirmed_and_now_nothing() -> None:
    world = World(max_connections_per_user=9)
    first = world.connect()
    for _ in range(3):
        world.publish()
    world.take(first)
    first.ack(2, world.now)
    assert world.seqs(world.connect(start="retained")) == [1, 2, 3]
    assert world.seqs(world.connect(start="pending")) == [3]
    late = world.connect(start="now")
    assert world.take(late) == [{"t": "live", "seq": 3}]
    world.publish()
    assert world.seqs(late) == [4]


def test_pending_tells_of_what_was_confirmed_in_between() -> None:
    world = World()
    old = world.connect()
    world.critical()
    late = world.connect(start="now")
    world.critical()
    world.process(late)
    world.critical()
    tab = world.connect(start="pending")
    assert world.seqs(tab) == [1, (2, 2, SETTLED), 3]
    world.pool.park(old, world.now)
    world.pool.park(tab, world.now)
    world.come_back(tab, 0)
    assert world.seqs(tab) == [1, 2, 3]


def test_pending_does_not_join_deltas_across_one_that_was_confirmed() -> None:
    world = World()
    world.delta("a")
    late = world.connect(start="now")
    world.delta("b")
    world.process(late)
    world.delta("c")
    assert world.seqs(world.connect(start="pending")) == [1, (2, 2, SETTLED), 3]


# -- what is given


def test_frames_say_what_they_are() -> None:
    world = World()
    tab = world.connect()
    world.critical({"run": 7}, id="a")
    world.publish("x", id="b", truncated=True)
    assert world.take(tab) == [
        {
            "t": "event",
            "seq": 1,
            "critical": True,
            "id": "a",
            "type": "agent_started",
            "payload": {"run": 7},
            "ts": 100.0,
        },
        {
            "t": "event",
            "seq": 2,
            "truncated": True,
            "id": "b",
            "type": "note",
            "payload": "x",
            "ts": 100.0,
        },
        {"t": "live", "seq": 2},
    ]
    assert not tab.pending
    assert world.take(tab) == []


def test_a_budget_gives_at_least_one_frame_and_live_comes_with_the_last_of_the_replay() -> None:
    world = World()
    for _ in range(3):
        world.publish()
    tab = world.connect()
    given = []
    while tab.pending:
        given.append([frame["t"] for frame in world.take(tab, 1)])
    assert given == [["event"], ["event"], ["event", "live"]]


def test_deltas_that_wait_come_as_one_and_those_that_do_not_come_alone() -> None:
    world = World()
    tab = world.connect()
    world.delta("on")
    assert world.seqs(tab) == [1]
    world.delta("ce ")
    world.delta("upon", truncated=True)
    world.critical()
    world.delta("a time")
    frames = world.take(tab)
    assert [(f["seq"], f["payload"], f.get("merged"), f.get("truncated")) for f in frames] == [
        (3, "ce upon", {"from": 2, "n": 1}, True),
        (4, None, None, None),
        (5, "a time", None, None),
    ]
    assert world.books.merged == 1
    tab.ack(5, world.now)
    assert world.books.settled == 5


def test_two_sessions_are_given_different_joins_of_the_same_deltas() -> None:
    world = World()
    one, other = world.connect(), world.connect()
    world.delta("a")
    assert [f["payload"] for f in world.take(one) if f["t"] == "event"] == ["a"]
    world.delta("b")
    world.delta("c")
    assert [f["payload"] for f in world.take(one)] == ["bc"]
    assert [f["payload"] for f in world.take(other) if f["t"] == "event"] == ["abc"]
    assert world.ada.deltas.tail_of(list(world.ada.entries.values())) is world.ada.deltas.tail_of(
        list(world.ada.entries.values())
    )


def test_a_delta_whose_time_has_passed_is_not_joined() -> None:
    world = World()
    tab = world.connect()
    world.delta("a")
    world.delta("b", ttl=1.0)
    world.delta("c")
    world.now += 1.0
    assert world.seqs(tab) == [1, (2, 2, EXPIRED), 3]


def test_an_event_whose_time_has_passed_is_told_of_and_a_critical_one_is_counted() -> None:
    world = World()
    tab = world.connect()
    world.critical(ttl=1.0)
    world.critical(ttl=1.0)
    world.publish(ttl=1.0)
    world.publish()
    world.now += 1.0
    gap = world.take(tab)[0]
    lost = {"agent_started": 2, "note": 1}
    assert gap == {"t": "gap", "from": 1, "to": 3, "reason": EXPIRED, "lost": lost, "critical": 2}
    assert world.books.dead_letters == 2


def test_gaps_of_two_reasons_are_two() -> None:
    world = World(max_events_per_user=2, max_events=2)
    tab = world.connect()
    world.publish()
    world.publish(1, type="status", key="k")
    world.publish(2, type="status", key="k")
    world.publish()
    assert world.seqs(tab) == [(1, 1, EVICTED), (2, 2, SUPERSEDED), 3, 4]


def test_what_has_expired_amid_others_is_a_gap_and_the_rest_follows() -> None:
    world = World()
    for ttl in (math.inf, math.inf, 1.0, 1.0, math.inf):
        world.publish(ttl=ttl)
    tab = world.connect()
    world.now += 2
    assert world.seqs(tab) == [1, 2, (3, 4, "expired"), 5]
    assert (world.books.sent, world.books.redelivered, tab.cursor, tab.top) == (3, 0, 5, 5)


def test_what_an_earlier_connection_was_sent_counts_as_redelivered() -> None:
    world = World()
    for _ in range(3):
        world.publish()
    tab = world.connect()
    world.take(tab)
    world.publish()
    world.publish()
    world.come_back(tab, 1)
    assert world.seqs(tab) == [2, 3, 4, 5]
    assert (world.books.sent, world.books.redelivered) == (5, 2)


def test_history_is_given_though_its_time_has_passed_until_it_is_swept() -> None:
    world = World()
    tab = world.connect()
    world.publish(ttl=1.0)
    world.process(tab)
    world.now += 2.0
    assert world.seqs(world.connect()) == [1]


# -- acks


def test_acks_are_cumulative_and_an_old_one_is_no_news() -> None:
    world = World()
    tab = world.connect()
    for _ in range(3):
        world.publish()
    world.take(tab)
    assert tab.ack(2, world.now)
    assert not tab.ack(2, world.now)
    assert not tab.ack(1, world.now)
    assert [e.settled for e in world.ada.entries.values()] == [True, True, False]


def test_an_ack_above_what_was_sent_changes_nothing() -> None:
    world = World()
    tab = world.connect()
    world.publish()
    with pytest.raises(Impossible):
        tab.ack(1, world.now)
    world.take(tab)
    world.publish()
    with pytest.raises(Impossible):
        tab.ack(2, world.now)
    assert tab.acked == 0
    assert world.books.settled == 0


def test_an_ack_amid_deltas_that_were_joined_in_the_log_settles_none_of_them() -> None:
    world = World(max_events_per_user=2, max_events=2)
    for _ in range(4):
        world.delta("text")
    tab = world.connect()
    world.take(tab)
    assert held(world.ada) == [(1, 3), 4]
    assert not tab.ack(2, world.now)
    world.pool.park(tab, world.now)
    world.come_back(tab, 2)
    assert tab.cursor == 0
    assert [f["payload"] for f in world.take(tab) if f["t"] == "event"] == ["text" * 4]
    assert tab.ack(3, world.now)
    assert world.books.settled == 3


def test_a_late_ack_of_what_an_earlier_connection_was_given_is_good() -> None:
    world = World()
    tab = world.connect()
    for _ in range(4):
        world.publish()
    world.take(tab)
    world.pool.park(tab, world.now)
    world.come_back(tab, 0)
    world.take(tab, 1)
    assert tab.cursor == 1
    assert tab.ack(3, world.now)
    assert world.seqs(tab) == [(2, 3, SETTLED), 4]
    assert world.books.settled == 3


def test_a_plain_client_confirms_by_being_sent_to_and_is_given_bare_events() -> None:
    world = World(max_events_per_user=3, max_events=3)
    world.publish("before")
    tab = world.connect(plain=True)
    for payload in ("lost", "b", "c", "d"):
        world.publish(payload)
    world.ada.sweep(world.now)
    frames = world.take(tab)
    assert frames == [
        {"id": f"e{n}", "type": "note", "payload": payload, "ts": 100.0}
        for n, payload in ((3, "b"), (4, "c"), (5, "d"))
    ]
    tab.ack_sent(world.now)
    tab.ack_sent(world.now)
    assert world.books.settled == 3
    world.delta("e")
    world.delta("f")
    assert [f["payload"] for f in world.take(tab)] == ["ef"]
    assert tab.redeliver(world.now + 100.0) == []


# -- redelivery


def tries(world: World, tab: Session, until: float, step: float = 0.001) -> list[tuple[float, int, int]]:
    """What is sent again by `until` seconds from now, looked at only when `deadline` says so: (after, seq, retry)."""
    start, seen = world.now, []
    while (at := tab.deadline()) - start <= until and not tab.exhausted(at):
        world.now = at
        assert tab.redeliver(math.nextafter(at, -math.inf)) == []
        for frame in tab.redeliver(at):
            retry = int(frame.split(b'"retry":')[1].split(b",")[0])
            seq = int(frame.split(b'"seq":')[1].split(b",")[0])
            seen.append((round(at - start, 3), seq, retry))
    return seen


def test_the_schedule_of_redelivery_to_the_millisecond() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    assert tries(world, tab, 60.0) == [(0.5, 1, 1), (1.0, 1, 2), (2.0, 1, 3), (5.0, 1, 4)]


def test_only_the_oldest_is_sent_again_and_what_came_due_meanwhile_is_passed_over() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.critical()
    world.take(tab)
    assert tries(world, tab, 1.2) == [(0.5, 1, 1), (1.0, 1, 2)]
    world.now = 101.2
    tab.ack(1, world.now)
    assert tries(world, tab, 60.0) == [(0.8, 2, 1), (3.8, 2, 2)]


def test_the_schedule_counts_from_the_writing_of_each() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    world.now += 0.4
    world.critical()
    world.take(tab)
    tab.ack(1, world.now)
    assert tries(world, tab, 60.0) == [(0.5, 2, 1), (1.0, 2, 2), (2.0, 2, 3), (5.0, 2, 4)]


def test_what_has_left_the_log_does_not_stand_before_what_is_due() -> None:
    world = World()
    tab = world.connect()
    world.publish()
    world.publish(tracked=True, ttl=5.5)
    world.take(tab)
    tries(world, tab, 5.0)
    world.now = 105.2
    world.publish(tracked=True)
    world.take(tab)
    world.now = 105.6
    tab.box.sweep(world.now)
    tab.ack(1, world.now)
    assert tries(world, tab, 0.2) == [(0.1, 3, 1)]


def test_one_who_comes_late_sends_once_and_skips_what_has_passed() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    world.now += 1.7
    (frame,) = tab.redeliver(world.now)
    assert b'"retry":1' in frame
    assert tab.redeliver(world.now) == []
    assert tab.deadline() == 102.0


def test_a_connection_that_acks_nothing_is_given_up_some_seconds_after_the_last_try() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    tries(world, tab, 60.0)
    assert tab.deadline() == 105.0 + PATIENCE
    assert not tab.exhausted(105.0 + PATIENCE - 0.001)
    assert tab.exhausted(105.0 + PATIENCE)
    tab.ack(1, 109.0)
    assert not tab.exhausted(1000.0)
    assert tab.deadline() == math.inf


def test_what_is_not_tracked_is_not_sent_again_and_gives_nobody_up() -> None:
    world = World()
    tab = world.connect()
    world.publish()
    world.take(tab)
    assert tab.deadline() == math.inf
    assert tab.redeliver(world.now + 100.0) == []
    assert not tab.exhausted(world.now + 100.0)
    world.publish(tracked=True)
    world.take(tab)
    assert tries(world, tab, 1.0) == [(0.5, 2, 1), (1.0, 2, 2)]


def test_what_has_left_the_log_is_not_sent_again() -> None:
    world = World(max_events_per_user=1, max_events=1)
    tab = world.connect()
    world.publish(tracked=True)
    world.take(tab)
    world.publish(tracked=True)
    world.take(tab)
    assert tries(world, tab, 0.6) == [(0.5, 2, 1)]


def test_a_new_connection_begins_the_schedule_anew() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    assert len(tries(world, tab, 1.0)) == 2
    world.pool.park(tab, world.now)
    assert tab.deadline() == math.inf
    world.come_back(tab, 0)
    assert world.seqs(tab) == [1]
    assert tries(world, tab, 0.6) == [(0.5, 1, 1)]


def test_a_nack_sends_again_at_once_and_then_after_the_intervals() -> None:
    world = World()
    tab = world.connect()
    world.publish()
    world.take(tab)
    seen = []
    for _ in range(6):
        tab.nack(1, world.now)
        seen.append(round(tab.deadline() - world.now, 3))
        world.now = tab.deadline()
        (frame,) = tab.redeliver(world.now)
        assert b'"retry":%d' % len(seen) in frame
    assert seen == [0.0, 0.5, 1.0, 2.0, 5.0, 5.0]


def test_the_retry_number_counts_what_was_sent_whatever_sent_it() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    world.now += 0.1
    tab.nack(1, world.now)
    assert b'"retry":1' in tab.redeliver(world.now)[0]
    assert tries(world, tab, 1.0) == [(0.4, 1, 2), (0.9, 1, 3)]


def test_what_is_due_for_two_reasons_is_sent_once() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    assert tab.deadline() == 100.5
    world.now += 0.5
    tab.nack(1, world.now)
    assert len(tab.redeliver(world.now)) == 1
    assert tab.deadline() == 101.0


def test_a_nack_puts_off_giving_up() -> None:
    world = World()
    tab = world.connect()
    world.critical()
    world.take(tab)
    tries(world, tab, 60.0)
    world.now = 109.0
    tab.nack(1, world.now)
    tab.redeliver(world.now)
    assert not tab.exhausted(118.9)
    assert tab.exhausted(119.0)


def test_a_nack_of_what_is_not_in_flight_is_a_mistake() -> None:
    world = World(max_events_per_user=3, max_events=3)
    tab = world.connect()
    for _ in range(3):
        world.publish()
    for seq in (0, 1, 4):
        with pytest.raises(Impossible):
            tab.nack(seq, world.now)
    world.take(tab)
    tab.ack(1, world.now)
    with pytest.raises(Impossible):
        tab.nack(1, world.now)
    world.publish()
    world.publish()
    assert tab.nack(2, world.now) is False, "it has gone, and that is nobody's mistake"
    assert tab.nack(3, world.now) is True
    world.publish()
    assert tab.redeliver(world.now) == []


def test_a_nack_of_joined_deltas_sends_the_same_again() -> None:
    world = World()
    tab = world.connect()
    world.delta("a")
    world.delta("b")
    sent = world.take(tab)[0]
    world.delta("c")
    tab.nack(2, world.now)
    (again,) = tab.redeliver(world.now)
    assert again.replace(b',"retry":1', b"") == (
        b'{"t":"event","seq":2,"merged":{"from":1,"n":1},"id":"e2","type":"token","payload":"ab","ts":100.0}'
    )
    assert sent["payload"] == "ab"
    assert world.seqs(tab) == [3]


def test_a_nack_of_deltas_that_were_joined_in_the_log_sends_them_again() -> None:
    world = World(max_events_per_user=2, max_events=2)
    for _ in range(2):
        world.delta("text")
    world.critical()
    tab = world.connect()
    (sent, *_) = world.take(tab)
    assert sent["merged"] == {"from": 1, "n": 1}
    tab.nack(2, world.now)
    (again,) = tab.redeliver(world.now)
    assert b'"retry":1' in again
    assert b'"texttext"' in again


def test_a_nack_of_joined_deltas_of_which_one_has_gone_sends_nothing() -> None:
    world = World(max_events_per_user=3, max_events=3)
    tab = world.connect()
    world.delta("a")
    world.delta("b")
    world.take(tab)
    world.critical()
    world.critical()
    assert not tab.nack(2, world.now)
    assert tab.redeliver(world.now) == []


def test_what_a_session_was_told_is_superseded_can_not_be_nacked() -> None:
    world = World()
    fast, slow = world.connect(), world.connect()
    world.publish(1, type="status", key="k")
    world.take(fast)
    world.publish(2, type="status", key="k")
    world.take(slow)
    assert not slow.nack(1, world.now)
    assert fast.nack(1, world.now)


# -- what others ask of it


def test_silent_is_one_with_events_in_flight_for_a_while_or_blocked() -> None:
    world = World()
    tab = world.connect()
    assert not tab.silent(world.now + 100.0, 2.0)
    world.now += 100.0
    world.publish()
    world.take(tab)
    assert not tab.silent(world.now + 2.0, 2.0)
    assert tab.silent(world.now + 2.1, 2.0)
    tab.ack(1, world.now)
    assert not tab.silent(world.now + 100.0, 2.0)
    tab.blocked = world.now
    assert tab.silent(world.now, 2.0)


def test_the_first_writing_is_kept_though_it_was_at_zero() -> None:
    world = World()
    world.now = 0.0
    tab = world.connect()
    entry = world.critical()
    deltas = [world.delta("a"), world.delta("b")]
    world.take(tab)
    world.pool.park(tab, world.now)
    world.now = 3.0
    world.come_back(tab, 0)
    world.take(tab, PLENTY)
    assert [e.first_sent for e in (entry, *deltas)] == [0.0, 0.0, 0.0]
    tab.ack(3, 4.0)
    assert world.confirmations.latency.maximum == 4.0


def test_a_firm_entry_is_firm_in_the_class_that_names_it() -> None:
    assert World().critical().retention == FIRM


def test_who_acks_slowly_is_not_given_up() -> None:
    world = World()
    tab = world.connect()
    for _ in range(3):
        world.critical()
    world.take(tab)
    for seq in (1, 2):
        world.now += 6.0
        tab.redeliver(world.now)
        assert not tab.exhausted(world.now)
        tab.ack(seq, world.now)
    assert not tab.exhausted(world.now + 9.9)
    assert tab.exhausted(world.now + 10.0)
