"""The lease of one node: renewed in time, or the node stops before others may take over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_ws.cluster.membership import BEAT, LEASE, MARGIN, Membership
from trio_ws.errors import StoreError
from trio_ws.store import NodeRecord, Place

from .world import CutOff


class Member:
    """A node that beats, and notes what happens to it."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.store = CutOff(place, name)
        self.suspended_at: list[float] = []
        self.back_at: list[float] = []
        self.looking = 0.0
        self.failures = 0
        self.gone: list[str] = []
        self.left: list[bool] = []
        self.membership = Membership(
            self.store,
            lambda: {"name": name},
            on_suspended=lambda: self.suspended_at.append(trio.current_time()),
            on_back=self._look,
            on_gone=self._note_gone,
        )

    def _note_gone(self, record: NodeRecord) -> None:
        self.gone.append(record.node)
        self.left.append(record.left > 0)

    async def _look(self) -> None:
        await trio.sleep(self.looking)
        if self.failures:
            self.failures -= 1
            raise StoreError("not yet")
        self.back_at.append(trio.current_time())


@asynccontextmanager
async def members(*names: str) -> AsyncIterator[list[Member]]:
    place = Place()
    found = [Member(place, name) for name in names]
    async with trio.open_nursery() as nursery:
        for member in found:
            await member.membership.beat()
            nursery.start_soon(member.membership.run)
        yield found
        nursery.cancel_scope.cancel()


async def test_who_beats_lives_and_is_known_to_all() -> None:
    async with members("a", "b") as (a, b):
        await trio.sleep(20)
        assert a.membership.beats == 20 / BEAT + 1
        assert {record.node for record in a.membership.nodes()} == {"a", "b"}
        assert b.membership.lives("a")
        assert not a.suspended_at
        (about,) = [record.about for record in b.membership.nodes() if record.node == "a"]
        assert about == b'{"name":"a"}'


async def test_what_is_told_of_a_lease_that_is_not_renewed_runs_out() -> None:
    async with members("a", "b") as (a, b):
        await trio.sleep(1)
        b.store.away = True
        before = [record.left for record in b.membership.nodes()]
        await trio.sleep(0.2)
        left = [record.left for record in b.membership.nodes()]
        assert left == pytest.approx([seconds - 0.2 for seconds in before])
        await trio.sleep(5)
        assert {record.left for record in b.membership.nodes()} == {0.0}
        assert {record.node for record in a.membership.nodes()} == {"a"}


async def test_who_is_cut_off_stops_before_others_may_take_over() -> None:
    async with members("a", "b") as (a, b):
        await trio.sleep(5.2)
        a.store.away = True
        began = trio.current_time()
        await trio.sleep(LEASE)
        (at,) = a.suspended_at
        assert at - began <= LEASE - MARGIN + 1e-6
        lease = a.place.leases["a"]
        assert at <= lease.until - MARGIN + 1e-6
        await trio.sleep(BEAT)
        assert b.gone == ["a"]
        a.store.away = False
        await trio.sleep(BEAT)
        assert not a.membership.suspended
        assert len(a.back_at) == 1
        assert a.membership.suspensions == 1


async def test_who_leaves_is_told_from_who_dies() -> None:
    async with members("a", "b", "c") as (a, b, c):
        await trio.sleep(5.2)
        await b.membership.leave()
        await trio.sleep(BEAT)
        assert (a.gone, a.left) == (["b"], [True])
        c.store.away = True
        await trio.sleep(LEASE + BEAT)
        assert (a.gone, a.left) == (["b", "c"], [True, False])


async def test_a_beat_that_hangs_is_no_beat() -> None:
    async with members("a") as (a,):
        gate = trio.Event()

        async def hang(step: str) -> None:
            if step == "beat":
                await gate.wait()

        await trio.sleep(5)
        a.store.hook = hang
        await trio.sleep(LEASE)
        assert a.membership.suspended
        a.store.hook = None
        gate.set()
        await trio.sleep(LEASE + BEAT)
        assert not a.membership.suspended


async def test_a_beat_whose_answer_is_late_counts_from_when_it_was_begun() -> None:
    async with members("a") as (a,):

        async def late(step: str) -> None:
            if step == "beat!":
                await trio.sleep(0.8)

        await trio.sleep(5)
        a.store.hook = late
        await trio.sleep(20)
        assert not a.membership.suspended
        lease = a.place.leases["a"]
        assert lease.until >= trio.current_time()


async def test_looking_at_what_is_left_may_take_long_and_may_fail() -> None:
    async with members("a", "b") as (a, b):
        a.store.away = True
        await trio.sleep(3)
        assert a.membership.suspended
        a.looking, a.failures = 5.0, 1
        a.store.away = False
        await trio.sleep(6)
        assert a.membership.suspended  # it beats all the same
        assert b.membership.lives("a")
        await trio.sleep(6)
        assert not a.membership.suspended


async def test_who_has_left_beats_no_more() -> None:
    async with members("a", "b") as (a, b):
        await trio.sleep(0.2)  # no beat is under way
        await a.membership.leave()
        await trio.sleep(5)
        assert "a" not in a.place.leases
        assert b.gone == ["a"]
        b.store.away = True
        await b.membership.leave()  # its lease ends by itself
