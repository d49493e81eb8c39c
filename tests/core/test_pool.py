"""Who may come in, who goes on where, and who has to make way."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws.core import closing
from trio_ws.core.pool import PARKED_PER_CONNECTION, Admitted, Refused

from .world import World


def refused(answer: Admitted | Refused) -> Refused:
    assert isinstance(answer, Refused)
    return answer


def admitted(answer: Admitted | Refused) -> Admitted:
    assert isinstance(answer, Admitted)
    return answer


# -- hits and misses


def test_a_session_that_is_parked_is_taken_up_again() -> None:
    world = World()
    tab = world.connect()
    world.pool.park(tab, world.now)
    assert (world.pool.connected, world.pool.parked) == (0, 1)
    assert world.come_back(tab) is tab
    pool = world.pool
    assert (pool.created, pool.hits, pool.misses, pool.reused) == (1, 1, 0, 1)
    assert (pool.connected, pool.parked, pool.total_connected) == (1, 0, 2)


def test_a_session_whose_connection_still_stands_is_taken_over() -> None:
    world = World(max_connections=1, max_connections_per_user=1)
    tab = world.connect()
    old = tab.link
    assert world.come_back(tab) is tab
    assert tab.link is not old
    assert (world.pool.connected, world.pool.hits, world.pool.reused) == (1, 1, 0)


@pytest.mark.parametrize(
    ("ask", "resumed"),
    [
        ({"session": "unheard of"}, False),
        ({"session": "unheard of", "epoch": "right", "seq": 1}, True),
        ({"session": "unheard of", "epoch": "wrong", "seq": 1}, False),
        ({"session": "known", "epoch": "wrong", "seq": 1}, False),
        ({"session": "known", "epoch": "right", "seq": 99}, False),
        ({"session": "known", "plain": True}, False),
        ({"epoch": "right", "seq": 1}, True),
    ],
)
def test_what_can_not_be_resumed_is_a_new_session(ask: dict[str, Any], resumed: bool) -> None:
    world = World()
    tab = world.connect()
    world.publish()
    ask = dict(ask)
    if ask.get("session") == "known":
        ask["session"] = tab.id
    if ask.get("epoch") == "right":
        ask["epoch"] = world.ada.epoch
    answer = admitted(world.ask(**ask))
    assert answer.session is not tab
    assert answer.resumed == resumed
    assert world.pool.misses == ("session" in ask)


def test_another_users_session_is_unknown() -> None:
    world = World()
    tab = world.connect()
    assert admitted(world.ask("bob", session=tab.id)).session is not tab


def test_a_plain_session_is_never_resumed() -> None:
    world = World()
    tab = world.connect(plain=True)
    assert admitted(world.ask(session=tab.id)).session is not tab


def test_a_known_session_without_a_cursor_goes_on_from_what_it_acked() -> None:
    world = World()
    tab = world.connect()
    for _ in range(3):
        world.publish()
    world.take(tab)
    tab.ack(2, world.now)
    assert admitted(world.ask(session=tab.id)).position == 2


# -- limits


def test_parked_goes_before_silent_and_that_before_the_oldest() -> None:
    world = World(max_connections_per_user=3)
    tabs = []
    for _ in range(3):
        world.now += 1.0
        tabs.append(world.connect())
    oldest, silent, parked = tabs
    world.publish()
    for tab in tabs:
        world.take(tab)
    world.now += 3.0
    oldest.ack(1, world.now)
    world.pool.park(parked, world.now)
    gone = []
    for _ in range(4):
        world.now += 1.0
        before = set(world.ada.sessions.values())
        tabs.append(world.connect(start="now"))
        gone += list(before - set(world.ada.sessions.values()))
    assert gone == [parked, silent, oldest, tabs[3]]
    assert len(world.ada.sessions) == world.pool.connected == 3


def test_reject_refuses_where_a_connection_would_have_to_go_but_not_for_a_parked_one() -> None:
    world = World(max_connections_per_user=2, over_limit="reject")
    first, second = world.connect(), world.connect()
    answer = refused(world.ask())
    assert (answer.code, answer.retry_after) == (closing.LIMIT_REACHED, None)
    assert "2 connections per user" in answer.reason
    assert world.pool.rejected == 1
    assert set(world.ada.sessions.values()) == {first, second}
    world.pool.park(second, world.now)
    assert admitted(world.ask()).displaced == [second]


def test_where_all_connections_are_taken_one_of_the_users_own_makes_way() -> None:
    world = World(max_connections_per_user=2, max_connections=2)
    bob, ada = world.connect("bob"), world.connect()
    answer = admitted(world.ask())
    assert answer.displaced == [ada]
    assert bob.link is not None


@pytest.mark.parametrize(
    ("policy", "code", "retry_after"),
    [("replace", closing.DRAINING, [5.0, 4.607]), ("reject", closing.LIMIT_REACHED, [None, None])],
)
def test_where_others_have_them_all_one_is_refused(
    policy: str, code: closing.CloseCode, retry_after: list[float | None]
) -> None:
    world = World(max_connections_per_user=2, max_connections=2, over_limit=policy)
    tab = world.connect()
    world.pool.park(tab, world.now)
    world.connect("bob")
    world.connect("bob")
    for ask, after in zip(({}, {"session": tab.id}), retry_after, strict=True):
        answer = refused(world.ask(**ask))
        assert (answer.code, answer.retry_after) == (code, after)
    assert world.pool.rejected == 2
    assert (world.pool.created, world.pool.hits) == (3, 0)
    assert list(world.ada.sessions.values()) == [tab]


def test_the_users_own_limit_can_make_the_room_in_all() -> None:
    world = World(max_connections_per_user=1, max_connections=1)
    tab = world.connect()
    assert admitted(world.ask()).displaced == [tab]
    assert world.connect() is not tab
    assert world.pool.connected == 1


def test_a_resume_needs_no_room_among_the_users_own() -> None:
    world = World(max_connections_per_user=2)
    tabs = [world.connect(), world.connect()]
    for tab in tabs:
        world.pool.park(tab, world.now)
    for tab in tabs:
        assert world.come_back(tab) is tab


# -- the parked


def test_what_is_parked_beyond_the_bound_is_named_the_oldest_first() -> None:
    world = World(max_connections=3, max_connections_per_user=3)
    tabs, over = [], []
    for n in range(PARKED_PER_CONNECTION * 3 + 2):
        tabs.append(world.connect(f"user{n}"))
        for old in world.pool.park(tabs[-1], world.now):
            over.append(old)
            world.pool.end(old, world.now)
    assert over == tabs[:2]
    assert world.pool.parked == PARKED_PER_CONNECTION * 3


def test_who_has_been_parked_for_long_has_expired_in_the_order_of_parking() -> None:
    world = World(session_ttl=10.0)
    first, second = world.connect(), world.connect()
    world.pool.park(second, world.now)
    world.now += 4.0
    world.pool.park(first, world.now)
    assert world.pool.expired(109.9) == []
    assert world.pool.expired(110.0) == [second]
    assert world.pool.expired(114.0) == [second, first]
    world.come_back(second)
    world.pool.park(second, 112.0)
    assert world.pool.expired(114.0) == [first]


@pytest.mark.parametrize("parked", [False, True])
def test_the_end_of_a_session_leaves_nothing_of_it(parked: bool) -> None:
    world = World()
    tab = world.connect()
    world.publish()
    if parked:
        world.pool.park(tab, world.now)
    world.pool.end(tab, world.now)
    assert (world.pool.connected, world.pool.parked) == (0, 0)
    assert world.ada.sessions == {}
    assert tab.link is None
    assert len(world.ada.entries) == 1


# -- what others lean on


def test_the_close_codes_say_what_clients_do() -> None:
    assert closing.reaction(4409) is closing.Reaction.STOP
    assert closing.reaction(4477) is closing.Reaction.STOP
    assert closing.reaction(4577) is closing.Reaction.RETRY
