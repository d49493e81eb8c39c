"""Whose log is whose, as one node knows it: claims, what is remembered of others, and looking at it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_ws.cluster import ownership as ownership_module
from trio_ws.cluster.membership import Membership
from trio_ws.cluster.ownership import Ownership
from trio_ws.errors import HubClosed, StoreError
from trio_ws.store import Place

from .world import CutOff


class One:
    """The ownership of one node, that is told what it has claimed."""

    def __init__(self, place: Place, name: str, nursery: trio.Nursery) -> None:
        self.store = CutOff(place, name)
        self.gone: list[str] = []
        self.claimed: list[str] = []
        self.membership = Membership(
            self.store,
            dict,
            on_suspended=lambda: None,
            on_back=trio.lowlevel.checkpoint,
            on_gone=lambda record: self.gone.append(record.node),
        )
        self.ownership = Ownership(
            self.store,
            self.membership,
            nursery,
            before_claim=self._before,
            on_claimed=self.claimed.append,
        )

    async def _before(self, user: str) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def ones(*names: str) -> AsyncIterator[list[One]]:
    place = Place()
    async with trio.open_nursery() as nursery:
        found = [One(place, name, nursery) for name in names]
        for one in found:
            await one.membership.beat()
        for one in found:
            await one.membership.beat()
        yield found
        nursery.cancel_scope.cancel()


async def test_many_who_ask_at_once_make_one_claim() -> None:
    async with ones("a") as (a,), trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(a.ownership.find, "ada")
        await a.ownership.find("ada")
        assert a.claimed == ["ada"]
        assert a.ownership.claims == 1


async def test_a_claim_goes_on_when_who_asked_for_it_is_cancelled() -> None:
    async with ones("a") as (a,):
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.ownership.find("ada")
        await trio.testing.wait_all_tasks_blocked()
        assert list(a.ownership.owned) == ["ada"]


async def test_who_has_a_log_is_remembered_until_it_is_otherwise() -> None:
    async with ones("a", "b") as (a, b):
        await a.ownership.find("ada")
        for _ in range(3):
            assert (await b.ownership.find("ada")).node == "a"
        assert b.ownership.claims == 1
        assert b.ownership.other("ada") == "a"
        b.ownership.forget("ada", "c")
        assert b.ownership.other("ada") == "a"
        b.ownership.forget("ada", "a")
        assert (await b.ownership.find("ada")).node == "a"
        assert b.ownership.claims == 2


async def test_an_owner_without_a_lease_is_taken_over_by_one_who_looked() -> None:
    async with ones("a", "b") as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(b.membership.run)
        await a.ownership.find("ada")
        await trio.sleep(1.9)
        assert (await b.ownership.find("ada")).node == "a"
        await trio.sleep(0.7)
        assert b.gone == ["a"]
        await a.membership.beat()  # b has not heard of this one, and hears of it when it asks
        assert not b.membership.lives("a")
        assert (await b.ownership.find("ada")).node == "a"
        await trio.sleep(3)
        assert (await b.ownership.find("ada")).node == "b"
        nursery.cancel_scope.cancel()
        assert b.ownership.taken_over == 1
        fenced = await a.ownership.look_at_all()
        assert fenced is not None
        assert fenced.taken == {"ada"}


async def test_an_owner_that_does_not_answer_is_taken_over_though_it_has_a_lease() -> None:
    async with ones("a", "b") as (a, b):
        await a.ownership.find("ada")
        await b.ownership.find("ada")
        b.ownership.forget("ada", "a", gone=True)
        assert (await b.ownership.find("ada")).node == "b"


async def test_what_a_node_had_that_is_gone_is_not_remembered() -> None:
    async with ones("a", "b") as (a, b):
        await a.ownership.find("ada")
        await b.ownership.find("ada")
        await a.membership.leave()
        await b.membership.beat()
        assert b.gone == ["a"]
        b.ownership.node_is_gone("a")
        assert b.ownership.other("ada") is None


async def test_a_store_that_is_away_says_so_to_all_who_ask() -> None:
    async with ones("a") as (a,):
        a.store.away = True
        told = 0

        async def ask() -> None:
            nonlocal told
            with pytest.raises(StoreError):
                await a.ownership.find("ada")
            told += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert told == 3
        a.store.away = False
        assert (await a.ownership.find("ada")).node == "a"


async def test_who_asks_while_a_log_is_given_back_waits_for_that() -> None:
    async with ones("a") as (a,):
        await a.ownership.find("ada")
        open_gate = trio.Event()

        async def hold(step: str) -> None:
            if step == "release":
                await open_gate.wait()

        a.store.hook = hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ownership.release, ["ada", "unknown"])
            await trio.testing.wait_all_tasks_blocked()
            assert not a.ownership.owned
            assert a.ownership.is_changing("ada")
            nursery.start_soon(a.ownership.find, "ada")
            await trio.testing.wait_all_tasks_blocked()
            assert not a.ownership.owned
            open_gate.set()
        assert list(a.ownership.owned) == ["ada"]
        assert a.ownership.released == 1


async def test_all_tokens_are_looked_at_in_turn_but_not_too_many_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ones("a", "b") as (a, b):
        users = [f"user{n}" for n in range(10)]
        for user in users:
            owner = await a.ownership.find(user)
            await b.store.claim(user, instead_of=owner.token)
        found: set[str] = set()
        for _ in range(2):
            fenced = await a.ownership.look_at_some(0.5)
            assert fenced is not None
            assert len(fenced.taken) == 5
            found |= fenced.taken
        assert found == set(users)
        monkeypatch.setattr(ownership_module, "MOST_LOOKED_AT", 3)
        fenced = await a.ownership.look_at_some(1.0)
        assert fenced is not None
        assert len(fenced.taken) == 3


async def test_what_was_released_meanwhile_is_not_taken_for_lost() -> None:
    async with ones("a") as (a,):
        await a.ownership.find("ada")

        async def release(step: str) -> None:
            if step == "lost":
                a.store.hook = None
                await a.ownership.release(["ada"])

        a.store.hook = release
        assert await a.ownership.look_at_all() is None


async def test_a_hub_that_has_ended_claims_nothing() -> None:
    async with ones("a") as (a,):
        a.ownership.closed = True
        with pytest.raises(HubClosed):
            await a.ownership.find("ada")
