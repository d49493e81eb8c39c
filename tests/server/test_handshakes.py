"""The handshakes under way: how many there are, and who makes way; without a server."""

from __future__ import annotations

from collections import Counter

import trio

from trio_ws.server.handshake import Handshake
from trio_ws.server.handshakes import Handshakes


def begin(pending: Handshakes, address: str | None) -> tuple[Handshake, trio.CancelScope]:
    scope = trio.CancelScope()
    return Handshake(scope, pending, address), scope


async def test_nobody_makes_way_while_there_is_room() -> None:
    pending = Handshakes(10, 5)
    scopes = [begin(pending, f"a{n % 2}")[1] for n in range(10)]
    assert len(pending) == 10
    assert not any(scope.cancel_called for scope in scopes)


async def test_one_address_takes_only_its_share() -> None:
    pending = Handshakes(100, 5)
    other = begin(pending, "other")[1]
    scopes = [begin(pending, "flood")[1] for _ in range(50)]
    assert len(pending) == 6
    assert sum(scope.cancel_called for scope in scopes) == 45
    assert not scopes[-1].cancel_called
    assert not other.cancel_called


async def test_what_has_no_address_counts_in_all_only() -> None:
    pending = Handshakes(20, 5)
    scopes = [begin(pending, None)[1] for _ in range(30)]
    assert len(pending) == 20
    assert sum(scope.cancel_called for scope in scopes) == 10


async def test_who_is_through_is_not_cut() -> None:
    pending = Handshakes(3, 3)
    for n in range(100):
        handshake, scope = begin(pending, "a")
        handshake.over()
        handshake.over()
        assert not scope.cancel_called, n
    assert len(pending) == 0
    assert not list(pending)


async def test_how_long_one_lasts_under_a_flood_is_chance() -> None:
    """Neither those who came first nor those who came last are the ones that go."""
    pending = Handshakes(50, 1000)
    born = dict[Handshake, int]()
    ages = Counter[bool]()
    for n in range(5000):
        before = set(pending)
        handshake, _ = begin(pending, f"a{n}")
        born[handshake] = n
        for gone in before - set(pending):
            ages[n - born[gone] > 50] += 1
    assert 0.25 < ages[True] / ages.total() < 0.5  # e to the power of -1


async def test_who_made_way_is_counted_so() -> None:
    pending = Handshakes(1, 1)
    first, scope = begin(pending, "a")
    begin(pending, "a")
    assert scope.cancel_called
    assert first.cause == "handshakes"
    assert first.verdict is None
