"""The bounds over all users, who is evicted for whom, and what it costs: counted in calls, not in seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trio_ws.core.entry import EVICTED, FIRM
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.remembered import REMEMBERED_IDS

from .world import World, held

# -- bounds in all


def test_room_in_all_comes_from_the_history_first_the_oldest_of_all() -> None:
    world = World(max_events_per_user=9, max_events=9)
    ada, bob = world.connect(), world.connect("bob")
    world.publish(user="bob")
    world.publish()
    world.publish()
    world.process(bob)
    world.process(ada)
    for _ in range(6):
        world.publish(user="cyd")
    left = []
    for _ in range(3):
        world.publish(user="cyd")
        left.append((held(world.buffer.mailbox("bob")), held(world.ada)))
    assert left == [([], [1, 2]), ([], [2]), ([], [])]
    assert world.books.history == 0
    assert world.books.evicted == 0


def test_then_from_the_fullest_mailbox_that_can_make_room() -> None:
    world = World(max_events_per_user=6, max_events=9)
    for _ in range(4):
        world.critical(user="bob")
    for _ in range(3):
        world.publish(user="cyd")
    for _ in range(2):
        world.publish()
    world.publish(user="ada")
    assert held(world.buffer.mailbox("cyd")) == [2, 3]
    world.publish(user="dan")
    world.publish(user="dan")
    assert held(world.buffer.mailbox("bob")) == [1, 2, 3, 4]
    assert world.books.events == 9
    assert {user: len(box.entries) for user, box in world.buffer.mailboxes.items()} == {
        "ada": 2,
        "bob": 4,
        "cyd": 1,
        "dan": 2,
    }


def test_the_fullest_is_the_fullest_now_whatever_it_was() -> None:
    world = World(max_events_per_user=6, max_events=9)
    for ttl in (100.0, 1.0, 1.0, 1.0):
        world.publish(user="bob", ttl=ttl)
    for _ in range(5):
        world.publish()
    world.publish(user="cyd")  # ada was the fullest, and bob is ranked with four
    world.now += 1.0
    world.buffer.mailbox("bob").sweep(world.now)
    for _ in range(3):
        world.publish(user="dan")
    world.publish(user="eve")
    assert held(world.buffer.mailbox("bob")) == [1]
    assert held(world.ada) == [3, 4, 5]


def test_the_fullest_in_bytes_makes_room_in_bytes() -> None:
    world = World(max_bytes_per_user=2048, max_bytes=2048, max_event_bytes=2048)
    for _ in range(3):
        world.publish("x" * 10, user="bob")
    world.publish("x" * 900)
    world.publish("x" * 900, user="cyd")
    assert held(world.ada) == []
    assert len(world.buffer.mailbox("bob").entries) == 3
    assert world.books.bytes <= 2048


def test_full_of_critical_events_of_all_users_it_refuses() -> None:
    world = World(max_events_per_user=2, max_events=3)
    world.critical()
    world.critical()
    world.critical(user="bob")
    assert world.offer(user="cyd") is None
    assert world.books.accepted == 3


def test_one_who_was_full_of_critical_events_makes_room_when_it_holds_others() -> None:
    world = World(max_events_per_user=4, max_events=5)
    for _ in range(3):
        world.critical()
    world.publish(user="bob")
    world.publish(user="bob")
    world.publish(user="cyd")  # ada is the fullest, and is passed over
    assert held(world.buffer.mailbox("bob")) == [2]
    world.publish()
    assert world.books.evicted == 2
    world.publish(user="dan")
    assert held(world.ada) == [1, 2, 3]


def test_overflows_are_counted_where_something_unsettled_made_room() -> None:
    world = World(max_events_per_user=2, max_events=2)
    tab = world.connect()
    world.publish()
    world.process(tab)
    world.publish()
    world.publish()
    assert (world.books.overflows, world.books.critical_preserved) == (0, 0)
    world.critical()
    assert (world.books.overflows, world.books.critical_preserved) == (1, 0)
    world.publish()
    assert (world.books.overflows, world.books.critical_preserved) == (2, 1)


def test_a_promise_of_room_that_can_not_be_kept_is_a_bug_and_says_so() -> None:
    world = World(max_events_per_user=1, max_events=1)
    world.critical()
    world.ada.firm_events = world.books.firm_events = 0
    with pytest.raises(AssertionError, match="promised"):
        world.offer()


# -- mailboxes come and go


def test_a_mailbox_that_was_closed_is_another_life() -> None:
    world = World()
    box = world.ada
    assert world.buffer.mailbox("ada") is box
    world.buffer.close(box)
    assert box.closed
    assert world.ada is not box
    assert world.ada.epoch != box.epoch


def test_closed_mailboxes_are_let_go_of() -> None:
    world = World(max_events_per_user=2, max_events=4)

    def churn(times: int) -> None:
        for n in range(times):
            box = world.buffer.mailbox(f"user{n}")
            world.publish(user=box.user, ttl=1.0)
            world.now += 1.0
            box.sweep(world.now)
            world.buffer.close(box)

    churn(1000)
    gc.collect()
    boxes = sum(isinstance(thing, Mailbox) for thing in gc.get_objects())
    assert boxes < 150
    assert len(world.buffer._by_events.changed) < 150
    assert world.books.events == world.books.bytes == 0


def test_a_closed_mailbox_among_the_ranked_is_passed_over() -> None:
    world = World(max_events_per_user=3, max_events=4)
    for user in ("ada", "bob"):
        world.publish(user=user, ttl=1.0)
        world.publish(user=user, ttl=1.0)
    world.publish(user="cyd")
    world.publish(user="cyd")
    world.now += 1.0
    for user in ("ada", "bob"):
        box = world.buffer.mailbox(user)
        box.sweep(world.now)
        world.buffer.close(box)
    for _ in range(5):
        world.publish(user="dan")
        world.publish(user="cyd")
    assert world.books.events == 4


# -- what it costs


def calls(action: Callable[[], None]) -> int:
    """How many calls, of Python and of C, `action` makes."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def full_of(kind: str, size: int) -> World:
    world = World(max_events_per_user=size, max_events=size, max_bytes_per_user=1 << 40, max_bytes=1 << 40)
    for n in range(size):
        if kind == "many users":
            world.publish(user=f"user{n % max(1, size // 10)}")
        elif kind == "keys":
            world.publish(type="status", key=f"k{n}", id=f"i{n}", owned_id=True)
        elif kind == "deltas":
            world.delta("text" if n % 2 else {"text": "text"})
        elif kind == "history":
            world.critical()
        else:
            world.publish(retention=2 + n % 3)
    if kind == "history":
        world.process(world.connect())
    return world


@pytest.mark.parametrize("kind", ["plain", "many users", "keys", "deltas", "history"])
def test_accepting_into_a_full_buffer_costs_the_same_however_large_it_is(kind: str) -> None:
    costs = {}
    for size in (10, 1_000, 100_000):
        world = full_of(kind, size)

        def churn(world: World = world, size: int = size) -> None:
            for n in range(300):
                if kind == "many users":
                    world.publish(user=f"user{n % max(1, size // 10)}")
                elif kind == "keys":
                    world.publish(type="status", key=f"k{n}", id=f"j{n}", owned_id=True)
                elif kind == "deltas":
                    world.delta("text" if n % 2 else {"text": "text"})
                else:
                    world.publish(retention=2 + n % 3)

        churn()  # what is put off until there is no room is done once, and spread over all that came before
        costs[size] = calls(churn)
    # A heap of 10,000 users is some levels deeper than one of 1: that is all the growth there may be.
    assert costs[100_000] < 1.5 * costs[1_000] + 300
    assert costs[100_000] < 3 * costs[10] + 300


def test_nothing_grows_under_churn() -> None:
    world = World(max_events_per_user=20, max_events=60, max_connections=30)
    tabs = {user: world.connect(user) for user in ("ada", "bob", "cyd", "dan")}
    largest: dict[str, int] = {}
    for n in range(100_000):
        user = ("ada", "bob", "cyd", "dan")[n % 4]
        if n % 3:
            world.offer("text", type="token", merge=True, user=user, id=f"d{n}", owned_id=True)
        else:
            world.offer(
                user=user,
                type=f"kind{n % 50}",
                key=f"k{n % 7}",
                retention=FIRM if n % 11 == 0 else 3,
                tracked=n % 5 == 0,
                id=f"e{n}",
                owned_id=True,
            )
        world.now += 0.01
        tab = tabs[user]
        if n % 7 == 0 and user != "dan":
            world.process(tab)
        elif n % 13 == 0:
            tab.take(world.now, 1 << 20)
        if n % 100 == 0:
            world.confirmations.expire(world.now)
            box = tab.box
            sizes = {
                "entries": len(box.entries),
                "ids": len(box._remembered),
                "keys": len(box._keys),
                "starts": len(box.deltas._starts or ()),
                "gone": len(box.gone),
                "skipped": len(tab.skipped),
                "waiting": len(world.confirmations._waiting),
                "unacked": len(tab._flight._unacked or ()),
                "firsts": len(tab._flight.firsts),
                "heap": len(world.buffer._by_events._heap) + len(world.buffer._by_bytes._heap),
                "changed": len(world.buffer._by_events.changed),
                "history": len(world.buffer._history),
            }
            largest = {name: max(size, largest.get(name, 0)) for name, size in sizes.items()}
    bounds = {
        "entries": 20,
        "ids": REMEMBERED_IDS + 20,
        "keys": 20,
        "starts": 2 * 20 + 64,
        "gone": 64 + 20,
        "skipped": 20,
        "waiting": 2 * 60 + 64,
        "unacked": 2 * 20 + 64,
        "firsts": 2 * 20 + 64,
        "heap": 2 * (4 * 4 + 64),
        "changed": 4,
        "history": 60,
    }
    assert {name: size for name, size in largest.items() if size > bounds[name]} == {}
    assert world.books.balanced


def test_the_reason_is_that_of_the_books() -> None:
    world = World(max_events_per_user=1, max_events=1)
    entry = world.publish()
    world.publish()
    assert entry.reason == EVICTED
