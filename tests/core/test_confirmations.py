"""Confirmations: counted once each, timed from the first writing, marked late, and forgotten in time."""

from __future__ import annotations

import math

from trio_ws.core.confirmations import Confirmations
from trio_ws.core.entry import EVICTED, Entry

from .model import make_entry
from .world import World


def confirm(confirmations: Confirmations, entry: Entry, now: float) -> None:
    entry.confirmed_at = now
    confirmations.settle([entry], now, -math.inf)


def test_a_confirmation_in_time() -> None:
    confirmations = Confirmations(5.0)
    entry = make_entry(tracked=True)
    assert confirmations.deadline == math.inf
    assert confirmations.rate == 1.0
    confirmations.written(entry, 10.0)
    assert confirmations.deadline == 15.0
    confirm(confirmations, entry, 10.25)
    assert confirmations.deadline == math.inf
    assert (confirmations.confirmed, confirmations.late, confirmations.timed_out) == (1, 0, 0)
    assert confirmations.latency.mean == 0.25
    assert confirmations.rate == 1.0


def test_a_timeout_is_counted_once_and_a_late_ack_still_confirms() -> None:
    confirmations = Confirmations(5.0)
    entry = make_entry(tracked=True)
    confirmations.written(entry, 10.0)
    assert confirmations.expire(14.999) == []
    assert confirmations.expire(15.0) == [entry]
    assert entry.timed_out
    assert confirmations.expire(100.0) == []
    assert confirmations.deadline == math.inf
    confirm(confirmations, entry, 30.0)
    assert (confirmations.confirmed, confirmations.late, confirmations.timed_out) == (1, 1, 1)
    assert confirmations.latency.maximum == 20.0
    assert confirmations.rate == 0.0


def test_what_is_confirmed_or_gone_behind_one_that_waits_does_not_time_out() -> None:
    confirmations = Confirmations(5.0)
    waits, confirmed, gone, late = entries = [make_entry(tracked=True) for _ in range(4)]
    for at, entry in enumerate(entries):
        confirmations.written(entry, float(at))
    confirm(confirmations, confirmed, 4.0)
    gone.reason = EVICTED
    assert confirmations.deadline == 5.0
    assert confirmations.expire(5.0) == [waits]
    assert confirmations.deadline == 8.0
    assert confirmations.expire(8.0) == [late]
    assert confirmations.rate == 1 / 3


def test_all_that_is_overdue_times_out_in_one_look() -> None:
    confirmations = Confirmations(5.0)
    entries = [make_entry(tracked=True) for _ in range(3)]
    for at, entry in enumerate(entries):
        confirmations.written(entry, float(at))
    gone = entries[0]
    gone.reason = EVICTED
    assert confirmations.expire(6.5) == [entries[1]]
    assert confirmations.expire(60.0) == [entries[2]]


def test_an_ack_without_a_writing_has_no_latency() -> None:
    confirmations = Confirmations(5.0)
    confirm(confirmations, make_entry(tracked=True), 1.0)
    assert confirmations.confirmed == 1
    assert confirmations.latency.count == 0


def test_one_that_waits_does_not_keep_the_others_that_were_confirmed() -> None:
    confirmations = Confirmations(5.0)
    confirmations.written(make_entry(tracked=True), 0.0)
    for _ in range(10_000):
        entry = make_entry(tracked=True)
        confirmations.written(entry, 1.0)
        confirm(confirmations, entry, 1.0)
    assert len(confirmations._waiting) <= 100
    assert confirmations.deadline == 5.0


def test_in_the_life_of_an_event_the_first_writing_counts_and_the_first_ack() -> None:
    world = World(confirm_timeout=5.0)
    one, other = world.connect(), world.connect()
    world.critical()
    world.publish()
    world.take(one)
    world.now += 1.0
    world.take(other)
    assert world.confirmations.deadline == 105.0
    world.now += 1.0
    one.ack(2, world.now)
    other.ack(2, world.now + 1.0)
    assert world.confirmations.confirmed == 1
    assert world.confirmations.latency.maximum == 2.0


def test_an_event_that_nobody_was_sent_does_not_time_out() -> None:
    world = World()
    world.critical()
    assert world.confirmations.deadline == math.inf
    assert world.confirmations.expire(1e9) == []
