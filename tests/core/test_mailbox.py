"""One user's log: who goes first, what is joined, what supersedes what, when something settles, what is remembered."""

from __future__ import annotations

import gc
import math

import pytest

from trio_ws.core.books import Books
from trio_ws.core.entry import EVICTED, EXPIRED, FIRM, SETTLED, SUPERSEDED, Entry
from trio_ws.core.remembered import REMEMBERED_IDS

from .model import make_entry
from .world import World, held

LOW, NORMAL, HIGH = 2, 3, 4


def gone(world: World) -> list[tuple[int, int, str]]:
    return [(run.first, run.last, run.reason) for run in world.ada.gone._runs]


# -- who goes when room is needed


def test_the_lowest_class_goes_first_and_the_oldest_of_it() -> None:
    world = World(max_events_per_user=6, max_events=6)
    for retention in (HIGH, NORMAL, LOW, FIRM, LOW, NORMAL):
        world.publish(retention=retention)
    order = []
    while world.offer(retention=FIRM) is not None:
        left = held(world.ada)
        order.append(next(seq for seq in range(1, 7) if seq not in left and seq not in order))
    assert order == [3, 5, 2, 6, 1]
    assert world.ada.firm_events == 6
    assert world.books.evicted == 5


def test_settled_goes_before_superseded_and_that_before_the_rest() -> None:
    world = World(max_events_per_user=4, max_events=4)
    tab = world.connect()
    world.publish()  # 1: will be settled
    world.process(tab)
    world.publish(retention=LOW)
    world.publish(type="status", key="k", retention=HIGH)
    world.take(tab)  # 2 and 3 are in flight
    world.publish(type="status", key="k", retention=HIGH)
    assert held(world.ada) == [1, 2, 3, 4]
    world.publish()
    assert held(world.ada) == [2, 3, 4, 5]
    world.publish()
    assert held(world.ada) == [2, 4, 5, 6]
    world.publish()
    assert held(world.ada) == [4, 5, 6, 7]
    assert gone(world) == [(1, 1, SETTLED), (2, 2, EVICTED), (3, 3, SUPERSEDED)]


def test_nothing_that_is_firm_makes_room_and_a_refusal_changes_nothing() -> None:
    world = World(max_events_per_user=3, max_events=3)
    for _ in range(3):
        world.critical()
    assert world.offer(retention=FIRM) is None
    assert world.offer(retention=LOW) is None
    assert held(world.ada) == [1, 2, 3]
    assert world.ada.head == 3
    assert world.books.accepted == world.books.held == 3


def test_a_user_has_room_for_so_many_and_no_more_however_much_there_is_in_all() -> None:
    world = World(max_events_per_user=3, max_events=100)
    for _ in range(3):
        world.publish()
    assert held(world.ada) == [1, 2, 3]
    world.publish()
    assert held(world.ada) == [2, 3, 4]


def test_the_newcomer_is_never_its_own_victim() -> None:
    world = World(max_events_per_user=2, max_events=2)
    world.publish(retention=HIGH)
    world.publish(retention=HIGH)
    world.publish(retention=LOW)
    assert held(world.ada) == [2, 3]


def test_bytes_bound_as_events_do() -> None:
    world = World(max_bytes_per_user=1024, max_event_bytes=1024)
    for _ in range(5):
        world.publish("x" * 300)
    assert world.ada.bytes <= 1024
    assert held(world.ada) == [4, 5]
    assert world.books.bytes == world.ada.bytes == sum(e.size for e in world.ada.entries.values())


def test_what_could_never_fit_is_refused_and_evicts_nobody() -> None:
    world = World(max_bytes_per_user=1024, max_event_bytes=1024)
    world.publish()
    assert world.offer("x" * 1020) is None
    assert held(world.ada) == [1]


def test_what_goes_lets_go_of_its_bytes() -> None:
    world = World(max_events_per_user=1, max_events=1)
    entry = world.publish("x" * 100, id="key", owned_id=True)
    world.publish()
    assert (entry.tail, entry.payload) == (b"", None)
    assert world.ada.find("key") is entry
    assert entry.state == EVICTED


# -- conflation


def test_the_garbage_collector_does_not_look_at_entries() -> None:
    assert not gc.is_tracked(make_entry())


def test_a_later_event_of_its_key_takes_the_place_of_one_that_nobody_was_sent() -> None:
    world = World()
    old = world.publish(1, type="status", key="k")
    world.publish(1, type="status", key="other")
    world.publish(1, type="progress", key="k")
    world.publish(2, type="status", key="k")
    assert held(world.ada) == [2, 3, 4]
    assert old.state == SUPERSEDED
    assert world.books.superseded == 1


def test_superseding_makes_the_room_that_the_newcomer_needs() -> None:
    world = World(max_events_per_user=3, max_events=3)
    world.publish(retention=LOW)
    world.publish(1, type="status", key="k")
    world.publish(retention=LOW)
    world.publish(2, type="status", key="k")
    assert held(world.ada) == [1, 3, 4]
    assert world.books.evicted == 0


def test_one_who_was_sent_it_may_still_confirm_it_and_the_others_are_told() -> None:
    world = World()
    fast, slow = world.connect(), world.connect()
    old = world.publish(1, type="status", key="k", tracked=True)
    world.take(fast)
    world.publish(2, type="status", key="k")
    assert held(world.ada) == [1, 2]
    assert world.seqs(slow) == [(1, 1, SUPERSEDED), 2]
    slow.ack(2, world.now)
    assert old.state == "sent"
    fast.ack(1, world.now)
    assert old.state == SETTLED


def test_skipping_what_is_superseded_confirms_nothing() -> None:
    world = World()
    fast, slow = world.connect(), world.connect()
    old = world.publish(1, type="status", key="k", tracked=True)
    world.take(fast)
    world.publish(2, type="status", key="k")
    world.process(slow)
    assert old.confirmed_at is None
    world.pool.end(fast, world.now)
    assert old.state == SUPERSEDED
    assert world.confirmations.confirmed == 0
    assert world.ada.unconfirmed == 0


def test_what_one_confirmed_settles_when_the_other_is_told_that_it_is_superseded() -> None:
    world = World()
    fast, slow = world.connect(), world.connect()
    old = world.publish(1, type="status", key="k")
    world.take(fast)
    world.publish(2, type="status", key="k")
    fast.ack(1, world.now)
    assert old.state == "confirmed"
    assert world.seqs(slow) == [(1, 1, SUPERSEDED), 2]
    assert old.state == SETTLED
    assert world.seqs(world.connect()) == [(1, 1, SUPERSEDED), 2]
    assert world.books.superseded == 0


def test_superseded_though_it_was_sent_it_goes_when_nobody_is_left_to_confirm_it() -> None:
    world = World()
    tab = world.connect()
    old = world.publish(1, type="status", key="k")
    world.take(tab)
    world.pool.end(tab, world.now)
    assert old.state == "sent"
    world.publish(2, type="status", key="k")
    assert old.state == SUPERSEDED
    assert held(world.ada) == [2]


def test_critical_events_and_deltas_supersede_nothing() -> None:
    world = World()
    world.publish(1, type="status", key="k", retention=FIRM)
    world.publish(1, type="status", key="k", merge=True)
    world.publish(2, type="status", key="k", retention=FIRM)
    world.publish("a", type="status", key="k", merge=True)
    assert held(world.ada) == [1, 2, 3, 4]


def test_what_is_settled_is_not_superseded() -> None:
    world = World()
    tab = world.connect()
    old = world.publish(1, type="status", key="k")
    world.process(tab)
    world.publish(2, type="status", key="k")
    assert old.state == SETTLED
    assert world.books.superseded == 0


# -- deltas in the log


def test_deltas_are_joined_before_anything_unsettled_is_evicted() -> None:
    world = World(max_events_per_user=4, max_events=4)
    world.publish(retention=LOW)
    for text in ("on", "ce ", "upon"):
        world.delta(text)
    world.publish()
    assert held(world.ada) == [1, (2, 4), 5]
    joined = world.ada.entries[2]
    assert joined.payload == b'"once upon"'
    assert joined.id == "e4"
    assert (world.books.merged, world.books.evicted, world.books.held) == (2, 0, 5)


def test_joined_deltas_are_joined_again() -> None:
    world = World(max_events_per_user=3, max_events=3)
    texts = [f"t{n} " for n in range(50)]
    for text in texts:
        world.delta(text)
    entries = list(world.ada.entries.values())
    whole = "".join((entry.payload or b"").decode().strip('"') for entry in entries)
    assert whole == "".join(texts)
    assert world.books.evicted == 0
    assert sum(entry.weight for entry in entries) == 50


@pytest.mark.parametrize(
    "barrier",
    [
        {"type": "agent_thinking", "retention": FIRM},
        {"type": "note"},
        {"type": "token", "merge": True, "key": "other"},
        {"type": "token", "merge": True, "retention": HIGH},
        {"type": "other", "merge": True},
    ],
    ids=["lifecycle", "no delta", "key", "class", "type"],
)
def test_nothing_is_joined_across_a_barrier(barrier: dict[str, object]) -> None:
    world = World(max_events_per_user=3, max_events=3)
    world.delta("a")
    world.publish("b", **barrier)
    world.delta("c")
    world.critical()
    assert not any(isinstance(each, tuple) for each in held(world.ada))
    assert world.books.evicted == 1


@pytest.mark.parametrize(("one", "other"), [("text", {"text": "x"}), (1, 2), ("a", None), ([1], [2])])
def test_what_would_lose_something_is_not_joined(one: object, other: object) -> None:
    world = World(max_events_per_user=2, max_events=2)
    world.delta(one)
    world.delta(other)
    world.delta(other)
    assert world.books.merged == 0
    assert world.books.evicted == 1


def test_what_a_session_was_sent_is_not_joined() -> None:
    world = World(max_events_per_user=3, max_events=3)
    tab = world.connect()
    world.delta("a")
    world.take(tab)
    world.delta("b")
    world.delta("c")
    world.critical()
    assert held(world.ada) == [1, (2, 3), 4]


def test_joined_deltas_stay_within_the_size_of_an_event() -> None:
    world = World(max_events_per_user=4, max_events=4, max_event_bytes=300)
    for n in range(6):
        world.delta(f"{n}" * 60)
    assert all(len(e.payload or b"") <= 300 for e in world.ada.entries.values())
    assert world.books.merged > 0


def test_a_joined_event_may_take_in_the_next_where_joining_has_saved_bytes() -> None:
    tail = make_entry("e1", "token", {"text": "x" * 30}, merge=True)
    world = World(max_events_per_user=3, max_events=3, max_event_bytes=tail.size + 50)
    for _ in range(3):
        world.delta({"text": "x" * 30})
    world.delta({"text": ""})
    world.delta({"text": ""})
    world.critical()
    assert world.books.evicted == 0


def test_a_joined_event_is_truncated_if_a_part_of_it_is_and_expires_with_the_last() -> None:
    world = World(max_events_per_user=3, max_events=3)
    world.delta("a", ttl=5.0)
    world.delta("b", ttl=9.0, truncated=True)
    world.delta("c", ttl=7.0)
    world.critical()
    joined = world.ada.entries[1]
    assert joined.truncated
    assert joined.expires_at == world.now + 9.0


def test_who_waits_for_a_delta_waits_for_what_it_went_into() -> None:
    world = World(max_events_per_user=2, max_events=2)
    first = world.delta("a")
    first.waiters = [lambda: None]
    last = world.delta("b")
    world.critical()
    joined = world.ada.entries[1]
    assert (first.into, last.into) == (joined, joined)
    assert first.state == "merged"
    assert [delta.waiters for delta in (first, last)] == [None, None]
    assert joined.waiters is not None
    world.process(world.connect())
    assert world.books.resolved == [joined]


# -- settling


def test_settled_is_what_one_confirmed_and_nobody_else_is_owed() -> None:
    world = World()
    one, other = world.connect(), world.connect()
    entry = world.critical()
    assert entry.state == "held"
    world.take(one)
    assert entry.state == "sent"
    one.ack(1, world.now)
    assert entry.state == "confirmed"
    assert world.ada.firm_events == 1
    world.process(other)
    assert entry.state == SETTLED
    assert world.ada.firm_events == world.books.firm_events == world.books.firm_bytes == 0


@pytest.mark.parametrize("how", ["ended", "expired"])
def test_a_session_that_is_over_settles_what_another_confirmed_and_nothing_else(how: str) -> None:
    world = World()
    one, other = world.connect(), world.connect()
    both = world.critical()
    world.process(one)
    nobody = world.critical()
    world.take(one)
    if how == "ended":
        world.pool.end(other, world.now)
    else:
        world.pool.park(other, world.now)
        assert world.pool.expired(world.now + world.config.session_ttl) == [other]
        world.pool.end(other, world.now)
    assert both.state == SETTLED
    assert nobody.state == "sent"
    world.pool.end(one, world.now)
    assert nobody.state == "sent"
    assert world.seqs(world.connect(start="pending")) == [2]


def test_a_critical_event_owed_only_to_the_dormant_makes_room_as_history() -> None:
    world = World(max_events_per_user=3, max_events=3)
    awake, parked = world.connect(), world.connect()
    world.pool.park(parked, world.now)
    first, second, third = (world.critical() for _ in range(3))
    world.take(awake)
    awake.ack(2, world.now)
    assert world.ada.firm_events == 3
    world.critical()
    assert [e.state for e in (first, second, third)] == [SETTLED, "confirmed", "sent"]
    assert held(world.ada) == [2, 3, 4]
    world.critical()
    assert world.offer(retention=FIRM) is None
    assert world.seqs(world.come_back(parked)) == [(1, 2, SETTLED), 3, 4, 5]


def test_a_session_that_is_awake_holds_what_it_is_owed_until_it_stalls() -> None:
    world = World(max_events_per_user=1, max_events=1)
    one, other = world.connect(), world.connect()
    world.critical()
    world.process(one)
    assert world.offer(retention=FIRM) is None
    assert world.ada.relief_dry
    other.blocked, world.ada.relief_dry = world.now, False
    assert world.offer(retention=FIRM) is not None


@pytest.mark.parametrize("change", ["an ack", "an end", "a cut", "a claim"])
def test_after_a_refusal_there_is_relief_again_once_something_has_changed(change: str) -> None:
    world = World(max_events_per_user=2, max_events=2)
    one, other = world.connect(), world.connect()
    world.critical()
    world.critical()
    if change == "an ack":
        world.pool.park(other, world.now)
    else:
        world.take(one)
        one.ack(1, world.now)
    assert world.offer(retention=FIRM) is None
    if change == "an ack":
        world.process(one)
    elif change == "an end":
        world.pool.end(other, world.now)
    elif change == "a cut":
        world.pool.park(other, world.now)
    else:
        world.come_back(other, 1)
    assert world.offer(retention=FIRM) is not None


def test_a_full_hub_is_relieved_by_the_mailboxes_of_others() -> None:
    world = World(max_events_per_user=2, max_events=2)
    tab, parked = world.connect("bob"), world.connect("bob")
    world.pool.park(parked, world.now)
    world.critical(user="bob")
    world.critical(user="bob")
    world.process(tab)
    world.critical()
    assert held(world.buffer.mailbox("bob")) == [2]
    assert gone(world) == []


# -- time


def test_what_nobody_confirmed_expires_and_a_critical_one_is_a_dead_letter() -> None:
    world = World()
    world.publish(ttl=10.0)
    letter = world.critical(ttl=10.0)
    letter.waiters = [lambda: None]
    keep = world.critical()
    tail = letter.tail
    world.ada.sweep(world.now + 9.999)
    assert held(world.ada) == [1, 2, 3]
    world.ada.sweep(world.now + 10.0)
    assert held(world.ada) == [3]
    assert (world.books.expired, world.books.dead_letters) == (2, 1)
    assert world.books.dead == [(world.ada, letter, tail)]
    assert world.books.resolved == [letter]
    assert (letter.state, keep.state) == (EXPIRED, "held")
    assert world.ada.unconfirmed == 1
    assert world.ada.next_expiry == math.inf


def test_what_somebody_confirmed_is_no_loss_when_its_time_passes() -> None:
    world = World()
    one, other = world.connect(), world.connect()
    entry = world.critical(ttl=10.0)
    world.process(one)
    world.ada.sweep(world.now + 10.0)
    assert entry.state == SETTLED
    assert (world.books.expired, world.books.settled, world.books.dead) == (0, 1, [])
    assert world.take(other) == [
        {"t": "gap", "from": 1, "to": 1, "reason": SETTLED, "lost": {"agent_started": 1}, "critical": 0},
        {"t": "live", "seq": 1},
    ]


def test_history_stays_for_its_time_from_acceptance() -> None:
    world = World(event_ttl=30.0)
    tab = world.connect()
    world.critical()
    world.now += 20.0
    world.process(tab)
    world.ada.sweep(world.now + 9.0)
    assert held(world.ada) == [1]
    world.ada.sweep(world.now + 10.0)
    assert held(world.ada) == []
    assert gone(world) == [(1, 1, SETTLED)]
    assert world.books.history == 0


def test_a_sweep_for_one_leaves_the_history_of_others() -> None:
    world = World(event_ttl=30.0)
    tab = world.connect()
    world.publish()
    world.process(tab)
    world.publish(ttl=10.0)
    world.ada.sweep(world.now + 10.0)
    assert held(world.ada) == [1]
    assert world.ada.next_expiry == world.now + 30.0


def test_a_sweep_before_anything_is_due_looks_at_nothing() -> None:
    world = World()
    world.publish(ttl=50.0)
    world.ada.entries[1].expires_at = 0.0  # it would go if it were looked at
    world.ada.sweep(world.now + 49.0)
    assert held(world.ada) == [1]


# -- keys of publishers


def test_a_key_is_remembered_while_its_entry_is_held_and_among_the_last() -> None:
    world = World(max_events_per_user=2, max_events=2)
    first = world.critical(id="first", owned_id=True)
    for n in range(REMEMBERED_IDS + 10):
        world.publish(id=f"k{n}", owned_id=True)
    assert world.ada.find("first") is first
    assert world.ada.find("k0") is None
    assert world.ada.find(f"k{REMEMBERED_IDS + 9}") is world.ada.entries[world.ada.head]
    assert world.ada.find("unheard of") is None
    assert len(world.ada._remembered) <= REMEMBERED_IDS + 2


def test_keys_of_joined_deltas_stay_bounded_and_the_last_one_names_the_whole() -> None:
    world = World(max_events_per_user=2000, max_events=2000)
    for n in range(6000):
        world.delta("", id=f"k{n}", owned_id=True)
    assert len(world.ada._remembered) <= REMEMBERED_IDS + len(world.ada.entries)
    joined = world.ada.entries[1]
    assert joined.weight > 1000
    assert world.ada.find(joined.id) is joined


# -- states


def test_a_log_of_a_user_nobody_knows_has_nothing() -> None:
    assert World().ada.find("x") is None
    assert not World().ada.make_room()


@pytest.mark.parametrize("reason", [EVICTED, EXPIRED, SUPERSEDED])
def test_the_books_take_three_reasons(reason: str) -> None:
    books, entry = Books(), make_entry()
    books.accept(entry)
    books.lose(entry, reason)
    assert books.balanced
    assert getattr(books, reason) == 1


def test_the_books_refuse_any_other_reason() -> None:
    books, entry = Books(), make_entry()
    books.accept(entry)
    with pytest.raises(ValueError, match="settled"):
        books.lose(entry, SETTLED)


def test_an_entry_says_what_has_become_of_it() -> None:
    entry: Entry = make_entry()
    assert entry.state == "held"
    entry.first_sent = 0.0
    assert entry.state == "sent"
    entry.confirmed_at = 0.0
    assert entry.state == "confirmed"
