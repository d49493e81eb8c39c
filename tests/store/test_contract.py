"""What every store does, as `trio_ws.store.Store` has it: the same tests for all of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import pytest_trio
import trio

from trio_ws.core.gaps import Run
from trio_ws.core.records import Batch, Kept, KeyRecord, Part, Removal, RevokedRecord
from trio_ws.core.remembered import REMEMBERED_IDS
from trio_ws.redis.store import RedisStore
from trio_ws.store import MemoryStore, SqliteStore, Store
from trio_ws.store.interface import Opened
from trio_ws.store.shared_memory import Place as SharedPlace

from .claiming import Claiming
from .records import event, events, log, session


@attrs.define
class Place:
    """Where a store is, and the store: `again` closes it, and opens what it has left."""

    new: Callable[[], Awaitable[Store]]
    store: Store

    async def again(self) -> Store:
        await self.reopen()
        return self.store

    async def reopen(self) -> Opened:
        await self.store.close()
        self.store = await self.new()
        return await self.store.open()


@pytest.fixture(params=["memory", "sqlite", "shared memory", "redis"])
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What store it is; and the URL of the server, if it has one."""
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    return request.param, url


@pytest.fixture
def new(kind: tuple[str, str], tmp_path: Path, nursery: trio.Nursery) -> Callable[[], Awaitable[Store]]:
    """What makes stores at one place."""
    memory, shared = MemoryStore(), SharedPlace()
    names = itertools.count()

    async def new() -> Store:
        match kind[0]:
            case "memory":
                return memory
            case "sqlite":
                return SqliteStore(tmp_path / "store.db")
            case "shared memory":
                return Claiming(shared.node(f"node-{next(names)}"))
        store = RedisStore(kind[1])
        await nursery.start(store.run)
        return Claiming(store)

    return new


@pytest_trio.trio_fixture
async def place(new: Callable[[], Awaitable[Store]]) -> AsyncIterator[Place]:
    place = Place(new, await new())
    opened = await place.store.open()
    assert opened.users == []
    yield place
    await place.store.close()


async def kept(store: Store, user: str) -> Kept:
    found = await store.load(user)
    assert found is not None
    return found


async def test_what_was_committed_is_there_again(place: Place) -> None:
    everything = event(
        "ada",
        2,
        first=1,
        expires=1_700_000_009.25,
        key="k",
        merge=True,
        truncated=True,
        owned_id=True,
        priority=1,
    )
    lost = (Run(1, 4, "evicted", {"note": 3, "é": 1}, 0),)
    ada = log("ada", 3, reserved=19, due=5.5, partial=True, gone=lost)
    tab = session("ada", "tab", base=1, acked=2, skipped=(1, 7), parked=9.5)
    await place.store.commit(Batch(events=[everything, event("ada", 3)], users=[ada], sessions=[tab]))
    await place.store.commit(events("bob", 1))
    store = await place.again()
    found = await kept(store, "ada")
    assert found.events == [everything, event("ada", 3)]
    assert found.user[:7] == ada[:7]
    [run] = found.user.gone or ()
    assert (run.first, run.last, run.reason, run.lost, run.critical) == (
        1,
        4,
        "evicted",
        {"note": 3, "é": 1},
        0,
    )
    assert found.sessions == [tab]
    assert found.keys == found.damaged == []
    assert [e.seq for e in (await kept(store, "bob")).events] == [1]
    assert await store.load("nobody") is None


async def test_all_users_are_told_when_it_is_opened(place: Place) -> None:
    for user in ("ada", "bob", "Zoë ☃"):
        await place.store.commit(events(user, 1))
    assert sorted((await place.reopen()).users) == ["Zoë ☃", "ada", "bob"]


async def test_to_commit_once_more_changes_nothing(place: Place) -> None:
    store = place.store
    await store.commit(events("ada", 1, 2, 3, owned_id=True))
    batch = Batch(
        removed=[Removal("ada", 1, 2, "settled", True)],
        events=[event("ada", 4)],
        users=[log("ada", 4, confirmed=2)],
        sessions=[session("ada", "tab")],
        confirmed=[("ada", 3)],
    )
    await store.commit(batch)
    once = await kept(store, "ada")
    await store.commit(batch)
    again = await kept(store, "ada")
    assert (again.events, again.sessions, again.keys) == (once.events, once.sessions, once.keys)
    assert [e.seq for e in again.events] == [3, 4]


async def test_what_is_removed_goes_and_its_key_stays(place: Place) -> None:
    store = place.store
    await store.commit(events("ada", *range(1, 6), owned_id=True))
    await store.commit(Batch(events=[event("ada", 6)], users=[log("ada", 6)]))
    await store.commit(
        Batch(removed=[Removal("ada", 1, 2, "settled", True), Removal("ada", 6, 6, "evicted", False)])
    )
    found = await kept(await place.again(), "ada")
    assert [e.seq for e in found.events] == [3, 4, 5]
    assert found.keys == [KeyRecord("id-1", 1, "settled"), KeyRecord("id-2", 2, "settled")]


async def test_what_is_removed_may_come_back_as_another_in_the_same_commit(place: Place) -> None:
    store = place.store
    await store.commit(events("ada", 1, 2))
    joined = event("ada", 2, first=1, payload=b'"both"')
    await store.commit(
        Batch(removed=[Removal("ada", 1, 2, "merged", False)], events=[joined], users=[log("ada", 2)])
    )
    assert (await kept(store, "ada")).events == [joined]


async def test_events_are_confirmed_up_to_a_seq_and_one_by_one(place: Place) -> None:
    store = place.store
    await store.commit(events("ada", *range(1, 6)))
    await store.commit(Batch(users=[log("ada", 5, confirmed=2)], confirmed=[("ada", 4), ("ada", 99)]))
    assert [e.confirmed for e in (await kept(store, "ada")).events] == [True, True, False, True, False]


async def test_what_was_lost_stays_where_it_is_not_said_anew(place: Place) -> None:
    store, lost = place.store, (Run(1, 2, "evicted", {"a": 2}, 0),)
    await store.commit(Batch(users=[log("ada", 2, gone=lost)]))
    await store.commit(Batch(users=[log("ada", 3, gone=None)]))
    [run] = (await kept(store, "ada")).user.gone or ()
    assert (run.first, run.last) == (1, 2)
    await store.commit(Batch(users=[log("ada", 3, gone=())]))
    assert (await kept(store, "ada")).user.gone == ()


async def test_sessions_move_and_end(place: Place) -> None:
    store = place.store
    both = [session("ada", "one"), session("ada", "two")]
    await store.commit(Batch(users=[log("ada", 9)], sessions=both))
    await store.commit(Batch(sessions=[session("ada", "one", acked=7, parked=5.0)], ended=[("ada", "two")]))
    assert (await kept(store, "ada")).sessions == [session("ada", "one", acked=7, parked=5.0)]


async def test_of_a_closed_user_nothing_is_left(place: Place) -> None:
    store = place.store
    await store.commit(events("ada", 1, 2, owned_id=True))
    await store.commit(
        Batch(
            removed=[Removal("ada", 1, 1, "settled", True)],
            sessions=[session("ada", "tab")],
            users=[log("ada", 2)],
        )
    )
    await store.commit(Batch(closed=["ada"]))
    assert await store.load("ada") is None
    await store.commit(events("ada", 1))
    await store.commit(Batch(closed=["ada"], events=[event("ada", 1)], users=[log("ada", 1, epoch="new")]))
    found = await kept(store, "ada")
    assert (found.user.epoch, found.sessions, found.keys) == ("new", [], [])
    assert [e.seq for e in found.events] == [1]


async def test_keys_of_what_was_never_written_are_kept(place: Place) -> None:
    key = KeyRecord("once", 1, "evicted")
    await place.store.commit(Batch(users=[log("ada", 1)], keys=[("ada", key)]))
    assert (await kept(await place.again(), "ada")).keys == [key]


async def test_keys_are_bounded(place: Place) -> None:
    store, many = place.store, 3 * REMEMBERED_IDS
    for low in range(1, many, 512):
        seqs = range(low, low + 512)
        await store.commit(events("ada", *seqs, owned_id=True))
        await store.commit(Batch(removed=[Removal("ada", seqs[0], seqs[-1], "settled", True)]))
    keys = (await kept(store, "ada")).keys
    assert [key.seq for key in keys] == list(range(many - REMEMBERED_IDS + 1, many + 1))


async def a_rest(store: Store) -> None:
    """A log of 20 events, of which those from 11 on are the rest; every third is not critical, two expire."""
    batch = Batch(users=[log("ada", 20, rest=11)])
    for seq in range(1, 21):
        expires = {14: 50.0, 17: 40.0}.get(seq)
        batch.events.append(
            event(
                "ada",
                seq,
                priority=3 if seq % 3 else seq % 2,
                expires=expires,
                owned_id=seq % 2 == 0,
                payload=b"1" * 100,
            )
        )
    await store.commit(batch)
    await store.commit(events("bob", 12))


async def test_the_rest_of_a_log_is_told_of_and_not_loaded(place: Place) -> None:
    await a_rest(place.store)
    found = await kept(await place.again(), "ada")
    assert found.user.rest == 11
    assert [e.seq for e in found.events] == list(range(1, 11))
    assert found.rest is not None
    assert (found.rest.lesser, found.rest.due) == (3, 40.0)
    assert found.rest.keys == {f"id-{seq}": seq for seq in range(12, 21, 2)}
    assert (await kept(place.store, "bob")).rest is None
    await place.store.commit(Batch(users=[log("ada", 20)]))
    found = await kept(place.store, "ada")
    assert (found.user.rest, found.rest, len(found.events)) == (0, None, 20)


@pytest.mark.parametrize(
    ("part", "seqs"),
    [
        (Part(first=11, last=20, most=100), list(range(11, 21))),
        (Part(first=11, last=15, most=100), list(range(11, 16))),
        (Part(first=11, last=20, most=3), [11, 12, 13]),
        (Part(first=11, last=20, most=100, size=1), [11]),
        (Part(first=11, last=20, most=100, size=250), [11, 12, 13]),
        (Part(first=11, last=20, most=100, id="id-16"), [16]),
        (Part(first=11, last=20, most=100, id="id-3"), []),
        (Part(first=11, last=20, most=100, mortal=True), [17, 14]),
        (Part(first=11, last=16, most=100, mortal=True), [14]),
        (Part(first=11, last=20, most=100, lesser=True), [12, 18, 15]),
        (Part(first=11, last=20, most=2, lesser=True), [12, 18]),
        (Part(first=21, last=30, most=100), []),
    ],
)
async def test_parts_of_the_rest_are_read(place: Place, part: Part, seqs: list[int]) -> None:
    await a_rest(place.store)
    assert [e.seq for e in await place.store.read("ada", part)] == seqs
    assert await place.store.read("nobody", part) == []


async def test_users_whose_events_expire_are_found(place: Place) -> None:
    store = place.store
    for number, due in enumerate((10.0, 20.0, None, 5.0)):
        await store.commit(Batch(users=[log(f"user{number}", 1, due=due)]))
    assert sorted(await store.due(10.0, 10)) == ["user0", "user3"]
    assert len(await store.due(30.0, 2)) == 2
    assert await store.due(4.0, 10) == []


async def test_who_is_revoked_is_told_when_it_is_opened(place: Place) -> None:
    ada, bob = RevokedRecord("ada", 100.5, 200.0), RevokedRecord("bob", 100.5, 900.25)
    await place.store.commit(Batch(revoked=[ada, bob]))
    await place.store.commit(Batch(revoked=[later := ada._replace(since=150.0, until=300.0)]))
    opened = await place.reopen()
    assert sorted(opened.revoked) == [later, bob]
    assert opened.users == []


async def test_how_many_events_were_unconfirmed_when_it_was_opened_is_found_out(place: Place) -> None:
    joined = event("ada", 6, first=4)
    await place.store.commit(Batch(events=[event("ada", 1), joined], users=[log("ada", 6, confirmed=2)]))
    await place.store.commit(events("bob", *range(1, 6)))
    await place.store.commit(Batch(confirmed=[("bob", 4)]))
    store = await place.again()
    await store.commit(events("eve", 1))
    assert await store.check() == (None if isinstance(store, Claiming) else 3 + 4)


async def test_closing_twice_is_fine(place: Place) -> None:
    await place.store.close()
    await place.store.close()
