"""What every store does that nodes share, as `trio_ws.store.SharedStore` has it: the same tests for all of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_trio
import trio
from loopback.redis import RedisServer

from trio_ws.core.records import Batch, Kept, Removal, RevokedRecord, RunRecord
from trio_ws.redis import RedisStore
from trio_ws.store import Fenced, Owner, SharedStore
from trio_ws.store.shared_memory import Place as SharedPlace

from .records import event, events, log, session

LEASE = 0.05
DOCS = Path(__file__).resolve().parents[2] / "docs" / "redis.md"
[RIGHTS] = re.findall(r"^ACL SETUSER trio-ws reset on .*", DOCS.read_text(), re.MULTILINE)
"""What makes the user as which nodes log in: with no more rights than are said to be enough."""


class InMemory:
    """Nodes of one process."""

    def __init__(self) -> None:
        self._place = SharedPlace()
        self._names = itertools.count()

    async def node(self) -> SharedStore:
        return self._place.node(f"node-{next(self._names)}")

    async def snapshot(self) -> Any:
        return self._place.snapshot()

    async def restore(self, snapshot: Any) -> None:
        self._place.restore(snapshot)


@attrs.define
class InRedis:
    """Nodes on one server."""

    server: RedisServer
    nursery: trio.Nursery

    async def node(self) -> SharedStore:
        await self.server.call(*RIGHTS.split())
        store = RedisStore(self.server.url.replace("//", "//trio-ws:PASSWORD@"))
        await self.nursery.start(store.run)
        return store

    async def snapshot(self) -> Any:
        keys = await self.server.call("KEYS", "*")
        return {key: await self.server.call("DUMP", key) for key in keys}

    async def restore(self, snapshot: Any) -> None:
        await self.server.call("FLUSHALL")
        for key, value in snapshot.items():
            await self.server.call("RESTORE", key, 0, value)


@pytest.fixture(params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> RedisServer | None:
    found: RedisServer | None = request.getfixturevalue("redis_server") if request.param == "redis" else None
    return found


@pytest.fixture
def place(server: RedisServer | None, nursery: trio.Nursery) -> InMemory | InRedis:
    return InMemory() if server is None else InRedis(server, nursery)


@pytest_trio.trio_fixture
async def ann(place: InMemory | InRedis) -> SharedStore:
    """A node."""
    store = await place.node()
    assert (await store.open()).users == []
    return store


@pytest_trio.trio_fixture
async def ben(place: InMemory | InRedis) -> SharedStore:
    """Another."""
    store = await place.node()
    await store.open()
    return store


async def owned(store: SharedStore, *users: str) -> list[Owner]:
    """Have them be this node's, whoever's they were; their logs loaded."""
    owners = []
    for user in users:
        owner = await store.claim(user)
        if owner.node != store.node:
            owner = await store.claim(user, owner.token)
        assert owner.node == store.node
        await store.load(user)
        owners.append(owner)
    return owners


async def kept(store: SharedStore, user: str) -> Kept:
    await owned(store, user)
    found = await store.load(user)
    assert found is not None
    return found


async def seqs(store: SharedStore, user: str) -> list[int]:
    return [event.seq for event in (await kept(store, user)).events]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(10):
        while not await true():  # noqa: ASYNC110
            await trio.sleep(LEASE / 10)


# -- who owns a log


async def test_who_claims_first_is_the_owner(ann: SharedStore, ben: SharedStore) -> None:
    owner = await ann.claim("ada")
    assert owner.node == ann.node
    assert await ann.claim("ada") == owner
    assert await ben.claim("ada") == owner
    assert await ben.claim("ada", "some other token") == owner
    assert (await ben.claim("bob")).node == ben.node


async def test_a_log_is_taken_over_from_the_owner_that_was_meant(ann: SharedStore, ben: SharedStore) -> None:
    before = await ann.claim("ada")
    after = await ben.claim("ada", before.token)
    assert after.node == ben.node
    assert after.token != before.token
    assert await ann.claim("ada", before.token) == after
    assert await ben.claim("ada", before.token) == after
    back = await ann.claim("ada", after.token)
    assert back.node == ann.node
    assert back.token not in (before.token, after.token)


async def test_of_two_who_claim_at_once_one_is_the_owner(ann: SharedStore, ben: SharedStore) -> None:
    told: dict[str, set[Owner]] = {}

    async def claim(store: SharedStore, user: str, instead_of: str | None) -> None:
        told.setdefault(user, set()).add(await store.claim(user, instead_of))

    users = [f"user{number}" for number in range(20)]
    async with trio.open_nursery() as nursery:
        for user, store in itertools.product(users, (ann, ben)):
            nursery.start_soon(claim, store, user, None)
    assert {user: len(owners) for user, owners in told.items()} == dict.fromkeys(users, 1)
    before = {user: owners.pop() for user, owners in told.items()}
    async with trio.open_nursery() as nursery:
        for user, store in itertools.product(users, (ann, ben)):
            nursery.start_soon(claim, store, user, before[user].token)
    for user, owners in told.items():
        [owner] = {owner for owner in owners if owner.token != before[user].token} or owners
        assert await ann.claim(user) == await ben.claim(user) == owner


async def test_only_the_owner_writes_and_the_others_of_a_commit_are_written(
    ann: SharedStore, ben: SharedStore
) -> None:
    await owned(ann, "ada", "bob", "eve")
    await ann.commit(events("ada", 1))
    await ann.commit(events("bob", 1))
    await owned(ben, "bob")
    await ben.commit(events("bob", 2))
    batch = Batch(
        events=[event(user, 3) for user in ("ada", "bob", "eve", "nobody's")],
        users=[log(user, 3) for user in ("ada", "bob", "eve", "nobody's")],
        removed=[Removal("bob", 1, 2, "settled", False)],
        sessions=[session("bob", "tab")],
    )
    for _ in range(2):
        with pytest.raises(Fenced) as fenced:
            await ann.commit(batch)
        assert fenced.value.taken == {"bob", "nobody's"}
        assert fenced.value.rolled_back == set()
    assert await seqs(ann, "ada") == [1, 3]
    assert await seqs(ann, "eve") == [3]
    assert await seqs(ben, "bob") == [1, 2]
    assert (await kept(ben, "bob")).sessions == []
    await ben.commit(events("bob", 3))


async def test_loading_and_closing_a_log_is_the_owners_too(ann: SharedStore, ben: SharedStore) -> None:
    await owned(ann, "ada")
    await ann.commit(events("ada", 1))
    await owned(ben, "ada")
    with pytest.raises(Fenced):
        await ann.load("ada")
    with pytest.raises(Fenced):
        await ann.commit(Batch(closed=["ada"]))
    assert await seqs(ben, "ada") == [1]


async def test_who_has_lost_a_log_is_told_which(ann: SharedStore, ben: SharedStore) -> None:
    await owned(ann, "ada", "bob", "eve")
    await ann.commit(events("ada", 1))
    assert await ann.lost(["ada", "bob", "eve"]) is None
    await owned(ben, "bob")
    lost = await ann.lost(["ada", "bob", "eve"])
    assert lost is not None
    assert (lost.taken, lost.rolled_back) == ({"bob"}, set())
    assert await ann.lost(["ada", "eve"]) is None
    assert await ann.lost([]) is None


async def test_a_log_that_is_released_is_anybodys(ann: SharedStore, ben: SharedStore) -> None:
    [before] = await owned(ann, "ada")
    await owned(ann, "bob")
    await ann.commit(events("ada", 1))
    await ann.release(["ada", "bob"])
    await ann.release(["ada", "nobody"])
    after = await ben.claim("ada")
    assert after.node == ben.node
    assert after.token != before.token
    assert await seqs(ben, "ada") == [1]
    with pytest.raises(Fenced):
        await ann.commit(events("ada", 2))
    await ann.release(["ada"])
    assert await ann.claim("ada") == after
    await ben.commit(events("ada", 2))


async def test_who_comes_back_to_a_log_owns_it_anew(ann: SharedStore) -> None:
    [before] = await owned(ann, "ada")
    await ann.commit(events("ada", 1))
    await ann.release(["ada"])
    [after] = await owned(ann, "ada")
    assert before.token != after.token
    await ann.commit(events("ada", 2))
    assert await seqs(ann, "ada") == [1, 2]


# -- what is lost


async def test_commits_that_are_lost_are_noticed(
    ann: SharedStore, ben: SharedStore, place: InMemory | InRedis
) -> None:
    await owned(ann, "ada", "bob", "eve")
    for user in ("ada", "bob", "eve"):
        batch = events(user, 1)
        batch.sessions.append(session(user, "tab"))
        await ann.commit(batch)
    before = await place.snapshot()
    await ann.commit(events("ada", 2))
    await ann.commit(events("eve", 2))
    await place.restore(before)
    batch = Batch(events=[event("ada", 3), event("bob", 2)], users=[log("ada", 3), log("bob", 2)])
    with pytest.raises(Fenced) as fenced:
        await ann.commit(batch)
    assert (fenced.value.taken, fenced.value.rolled_back) == (set(), {"ada"})
    lost = await ann.lost(["bob", "eve"])
    assert lost is not None
    assert (lost.taken, lost.rolled_back) == (set(), {"eve"})
    for user in ("ada", "eve"):
        found = await kept(ben, user)
        assert found.user.epoch != f"epoch of {user}"
        assert found.sessions == []
        assert [event.seq for event in found.events] == [1]
        anew = events(user, 2)
        anew.users = [found.user._replace(head=2, reserved=2, epoch="new")]
        await ben.commit(anew)
        assert (await kept(ann, user)).user.epoch == "new"
    assert (await kept(ben, "bob")).user.epoch == "epoch of bob"


async def test_a_log_that_is_let_go_while_commits_of_it_are_lost_begins_anew(
    ann: SharedStore, ben: SharedStore, place: InMemory | InRedis
) -> None:
    await owned(ann, "ada", "bob")
    await ann.commit(events("ada", 1))
    await ann.commit(events("bob", 1))
    before = await place.snapshot()
    await ann.commit(events("ada", 2))
    await place.restore(before)
    await ann.release(["ada", "bob"])
    assert (await kept(ben, "ada")).user.epoch != "epoch of ada"
    assert (await kept(ben, "bob")).user.epoch == "epoch of bob"


async def test_where_all_is_lost_nothing_is_made_up(ann: SharedStore, place: InMemory | InRedis) -> None:
    before = await place.snapshot()
    await owned(ann, "ada", "bob", "eve")
    for user in ("ada", "bob"):
        await ann.commit(events(user, 1))
    await place.restore(before)
    with pytest.raises(Fenced) as fenced:
        await ann.commit(events("ada", 2))
    assert fenced.value.rolled_back == {"ada"}
    lost = await ann.lost(["bob"])
    assert lost is not None
    assert lost.rolled_back == {"bob"}
    for user in ("ada", "bob", "eve"):
        await ann.claim(user)
        assert await ann.load(user) is None
    await ann.commit(events("ada", 1))


# -- who lives


async def test_nodes_that_live_are_told(ann: SharedStore, ben: SharedStore) -> None:
    [alone] = await ann.beat(b"of ann", 60.0)
    assert (alone.node, alone.about) == (ann.node, b"of ann")
    assert 50.0 < alone.left <= 60.0
    await ben.beat(b"", 60.0)
    living = await ann.beat(b"more of ann \xff", 60.0)
    assert {node.node: node.about for node in living} == {ann.node: b"more of ann \xff", ben.node: b""}
    await ben.leave()
    assert [node.node for node in await ann.beat(b"", 60.0)] == [ann.node]
    await ben.leave()


async def test_a_lease_lapses(ann: SharedStore, ben: SharedStore) -> None:
    await ann.beat(b"", 60.0)
    await ben.beat(b"", LEASE)

    async def is_alone() -> bool:
        return [node.node for node in await ann.beat(b"", 60.0)] == [ann.node]

    await until(is_alone)
    assert len(await ben.beat(b"", 60.0)) == 2


def run(user: str, *, open: bool) -> RunRecord:
    return RunRecord(user, "r", open, None, b"{}")


async def test_logs_of_the_dead_are_found_where_there_is_something_to_do(
    ann: SharedStore, ben: SharedStore
) -> None:
    for store in (ann, ben):
        await store.beat(b"", 60.0)
    users = ["with a run", "with a run that ended", "with something due", "at rest", "empty"]
    owners = dict(zip(users, await owned(ben, *users), strict=True))
    await ben.commit(
        Batch(
            users=[log(user, 1, due=5.0 if "due" in user else None) for user in users[:-1]],
            runs=[run("with a run", open=True), run("with a run that ended", open=True)],
        )
    )
    await ben.commit(Batch(runs=[run("with a run that ended", open=False)]))
    assert await ann.orphans(10) == []
    assert await ann.due(10.0, 10) == []
    await ben.leave()
    expected = [("with a run", owners["with a run"].token)]
    assert sorted(await ann.orphans(10)) == expected
    assert await ann.due(10.0, 10) == ["with something due"]
    assert await ann.due(4.0, 10) == []
    assert len(await ann.orphans(1)) == 1
    for user, token in expected:
        assert (await ann.claim(user, token)).node == ann.node
    assert await ann.orphans(10) == []
    assert await ann.due(10.0, 10) == ["with something due"]


async def test_logs_that_have_lost_commits_are_found_where_there_is_something_to_do(
    ann: SharedStore, ben: SharedStore, place: InMemory | InRedis
) -> None:
    users = ["noticed", "let go", "found by who comes after", "at rest", "due"]
    with_runs = users[:3]
    await owned(ann, *users)
    await ann.commit(
        Batch(
            users=[log(user, 1, due=5.0 if user == "due" else None) for user in users],
            runs=[run(user, open=True) for user in with_runs],
        )
    )
    for store in (ann, ben):
        await store.beat(b"", 60.0)
    before = await place.snapshot()
    await ann.commit(Batch(users=[log(user, 2) for user in users]))
    await place.restore(before)
    await ann.release(["let go"])
    lost = await ann.lost([user for user in users if user != "let go"])
    assert lost is not None
    assert lost.rolled_back == {*users} - {"let go"}
    for _ in range(2):
        assert sorted(await ann.orphans(10)) == [(user, "") for user in sorted(with_runs)]
        assert await ben.due(10.0, 10) == ["due"]
    assert len(await ann.orphans(1)) == 1
    assert (await ann.claim("noticed", "")).node == ann.node
    assert len(await ann.orphans(10)) == 2
    await ann.leave()
    assert sorted(user for user, _ in await ben.orphans(10)) == sorted(with_runs)
    for user, token in await ben.orphans(10):
        assert (await ben.claim(user, token)).node == ben.node
        found = await ben.load(user)
        assert found is not None
        assert found.user.epoch != f"epoch of {user}"
        assert [(r.run, r.open) for r in found.runs] == [("r", True)]
    assert await ben.orphans(10) == await ann.orphans(10) == []


async def test_users_whom_nobody_owns_are_due(ann: SharedStore, ben: SharedStore) -> None:
    for store in (ann, ben):
        await store.beat(b"", 60.0)
    await owned(ann, "ada", "bob", "eve")
    await ann.commit(Batch(users=[log("ada", 1, due=10.0), log("bob", 1, due=20.0), log("eve", 1, due=10.0)]))
    assert await ben.due(100.0, 10) == []
    await ann.release(["ada", "bob", "eve"])
    assert sorted(await ben.due(10.0, 10)) == ["ada", "eve"]
    assert len(await ben.due(10.0, 1)) == 1
    assert len(await ben.due(20.0, 10)) == 3
    await owned(ben, "ada", "eve")
    await ben.commit(Batch(users=[log("ada", 1)], closed=["eve"]))
    assert await ann.due(100.0, 10) == ["bob"]
    await ben.release(["ada", "eve"])
    assert await ann.due(100.0, 10) == ["bob"]


async def test_users_are_found_by_name(ann: SharedStore, ben: SharedStore) -> None:
    names = [
        "a",
        "ada",
        "adele",
        "bob",
        "b{o}b",
        "bob%7B",
        "Zoë ☃",
        "zoe",
        *(f"many{n:03}" for n in range(250)),
    ]
    await owned(ann, *names, "of whom nothing is kept", "closed")
    await ann.commit(Batch(users=[log(user, 1) for user in (*names, "closed")]))
    await ann.commit(Batch(closed=["closed"]))
    for _ in range(2):
        assert await ben.users("", 1000) == sorted(names)
        assert await ben.users("ad", 10) == ["ada", "adele"]
        assert await ben.users("ad", 1) == ["ada"]
        assert await ben.users("ad", 10, "ada") == ["adele"]
        assert await ben.users("b", 10, "Zoë ☃") == ["bob", "bob%7B", "b{o}b"]
        assert await ben.users("b", 10, "c") == await ben.users("c", 10) == []
        assert await ben.users("Zoë", 10) == ["Zoë ☃"]
        found = await ben.users("many", 200)
        assert found + await ben.users("many", 200, found[-1]) == names[-250:]
        await ann.release([*names, "of whom nothing is kept", "closed"])


async def test_who_is_revoked_is_told_to_all(ann: SharedStore, ben: SharedStore) -> None:
    assert await ben.revoked() == []
    ada, bob = RevokedRecord("ada", 100.5, 200.0), RevokedRecord("bob", 100.5, 900.25)
    await ann.commit(Batch(revoked=[ada]))
    assert await ben.revoked() == [ada]
    await ben.commit(Batch(revoked=[bob]))
    assert sorted(await ann.revoked()) == sorted(await ben.revoked()) == [ada, bob]
    later = ada._replace(since=150.0, until=300.0)
    await ann.commit(Batch(revoked=[later]))
    assert sorted(await ben.revoked()) == [later, bob]


# -- the bus


async def test_messages_come_to_the_node_that_they_are_for(
    ann: SharedStore, ben: SharedStore, nursery: trio.Nursery
) -> None:
    heard: dict[str, list[bytes]] = {ann.node: [], ben.node: []}
    assert await ann.send(ben.node, b"lost") is False
    assert await ann.send("nobody", b"lost") is False
    scopes = {}

    async def listen(store: SharedStore) -> None:
        with trio.CancelScope() as scopes[store.node]:
            await store.listen(heard[store.node].append)

    for store in (ann, ben):
        nursery.start_soon(listen, store)

        async def listens(store: SharedStore = store) -> bool:
            return await ann.send(store.node, b"early")

        await until(listens)

        async def hears(store: SharedStore = store) -> bool:
            await ann.send(store.node, b"early")
            return b"early" in heard[store.node]

        await until(hears)
    messages = [b"%d" % number for number in range(100)]
    for message in (*messages, b"\0\xff" * 50_000):
        assert await ann.send(ben.node, message)
    await ann.send(ben.node, b"last")

    async def all_came() -> bool:
        return b"last" in heard[ben.node]

    await until(all_came)
    told = [message for message in heard[ben.node] if message not in (b"early", b"last")]
    assert told == [*messages, b"\0\xff" * 50_000]
    assert set(heard[ann.node]) == {b"early"}
    scopes[ben.node].cancel()

    async def is_deaf() -> bool:
        return not await ann.send(ben.node, b"lost")

    await until(is_deaf)
    scopes[ann.node].cancel()


# -- small values


async def test_a_value_is_taken_once(ann: SharedStore, ben: SharedStore) -> None:
    assert await ann.take("name") is None
    await ann.put("name", b"of ann \0\xff", 60.0)
    await ben.put("other", b"", 60.0)
    taken: list[bytes | None] = []

    async def take(store: SharedStore) -> None:
        taken.append(await store.take("name"))

    async with trio.open_nursery() as nursery:
        for store in (ann, ben, ann, ben):
            nursery.start_soon(take, store)
    assert [value for value in taken if value is not None] == [b"of ann \0\xff"]
    assert await ann.take("other") == b""


async def test_a_value_is_kept_for_a_while(ann: SharedStore) -> None:
    await ann.put("name", b"first", 60.0)
    await ann.put("name", b"second", LEASE)
    await ann.put("long", b"kept", 60.0)
    await trio.sleep(2 * LEASE)
    assert await ann.take("name") is None
    assert await ann.take("long") == b"kept"
