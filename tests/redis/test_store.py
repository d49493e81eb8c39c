"""`RedisStore` where answers are lost, calls come late, nodes die, and Redis loses or damages what it has."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest
import pytest_trio
import trio
from loopback.redis import RedisServer

from tests.store.records import event, events, log, session
from trio_ws.core.records import Batch, EventRecord, Kept, KeyRecord, Part, Removal, RevokedRecord
from trio_ws.core.run_grammar import Happened
from trio_ws.core.runs import Run
from trio_ws.errors import InvalidConfig, StoreError
from trio_ws.redis import RedisStore, records
from trio_ws.redis.keys import Keys
from trio_ws.redis.logs import LOOK_CLOSELY
from trio_ws.redis.refusals import Unreachable
from trio_ws.redis.script import Script
from trio_ws.redis.server import Server
from trio_ws.store import Fenced

KEYS = Keys("trio-ws:")


@attrs.define
class Node:
    """A node, and the calls of its scripts: each as it was made, so that it can come once more, later.

    Attributes:
      lose: what becomes of the next: it is ``"made"`` and the answer is lost, or ``"not made"``; or `scope` is
        cancelled before it or after it: ``"cancelled"``, ``"made, cancelled"``.
      first: what comes between its next look at logs and what it makes of that.
    """

    store: RedisStore
    lose: str = ""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    first: Callable[[], Awaitable[None]] | None = None
    calls: list[tuple[Script, Any]] = attrs.field(factory=list)
    _scripts: Callable[..., Awaitable[list[Any]]] = attrs.field(init=False)
    _commands: Callable[..., Awaitable[list[Any]]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        redis = self.store._redis
        self._scripts = redis.scripts
        redis.scripts, redis.script = self._carry, self._carry_one  # type: ignore[method-assign, assignment]
        self._commands = redis.commands
        redis.commands = self._carry_commands  # type: ignore[method-assign, assignment]

    async def _carry_commands(self, *calls: Any) -> list[Any]:
        first, self.first = self.first, None
        replies = await self._commands(*calls)
        if first is not None:
            await first()
        return replies

    async def _carry(self, script: Script, calls: Sequence[Any], **more: Any) -> list[Any]:
        self.calls.append((script, calls))
        lose, self.lose = self.lose, ""
        if lose == "cancelled":
            self.scope.cancel()
        replies = [] if lose == "not made" else await self._scripts(script, calls, **more)
        if lose == "made, cancelled":
            self.scope.cancel()
            await trio.lowlevel.checkpoint()
        return [Unreachable("the answer is lost")] * len(calls) if lose else replies

    async def _carry_one(self, script: Script, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        [reply] = await self._carry(script, [(keys, args)])
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def once_more(self, name: str) -> None:
        """All calls of a script come again, and nobody hears what is answered."""
        for script, calls in [call for call in self.calls if call[0].name == name]:
            await self._scripts(script, calls)

    async def own(self, *users: str) -> None:
        for user in users:
            owner = await self.store.claim(user)
            if owner.node != self.store.node:
                await self.store.claim(user, owner.token)

    async def kept(self, user: str) -> Kept:
        await self.own(user)
        found = await self.store.load(user)
        assert found is not None
        return found


Start = Callable[[], Awaitable[Node]]


@pytest.fixture
def start(redis_server: RedisServer, nursery: trio.Nursery) -> Start:
    async def new_node() -> Node:
        store = RedisStore(redis_server.url)
        await nursery.start(store.run)
        return Node(store)

    return new_node


@pytest_trio.trio_fixture
async def ann(start: Start) -> Node:
    return await start()


@pytest_trio.trio_fixture
async def ben(start: Start) -> Node:
    return await start()


def seqs(kept: Kept) -> list[int]:
    return [event.seq for event in kept.events]


# -- answers that are lost, and calls that come late


@pytest.mark.parametrize("fate", ["made", "not made"])
async def test_a_commit_whose_answer_is_lost_is_made_again(ann: Node, fate: str) -> None:
    await ann.own("ada", "bob")
    await ann.store.commit(events("ada", 1))
    batch = Batch(
        events=[event("ada", 2), event("bob", 1)],
        users=[log("ada", 2), log("bob", 1)],
        removed=[Removal("ada", 1, 1, "settled", True)],
    )
    for _ in range(3):
        ann.lose = fate
        with pytest.raises(StoreError, match="lost"):
            await ann.store.commit(batch)
    await ann.store.commit(batch)
    assert await ann.store.lost(["ada", "bob"]) is None
    assert (seqs(await ann.kept("ada")), seqs(await ann.kept("bob"))) == ([2], [1])
    await ann.store.commit(events("ada", 3))


async def test_a_commit_that_was_given_up_may_have_been_made_or_not(ann: Node) -> None:
    await ann.own("ada", "bob")
    for fate, user in (("made", "ada"), ("not made", "bob")):
        ann.lose = fate
        with pytest.raises(StoreError):
            await ann.store.commit(events(user, 1))
        await ann.store.commit(events(user, 2))  # another one
    assert (seqs(await ann.kept("ada")), seqs(await ann.kept("bob"))) == ([1, 2], [2])


async def test_a_commit_that_comes_late_changes_nothing(ann: Node) -> None:
    await ann.own("ada")
    await ann.store.commit(events("ada", 1, 2))
    await ann.store.commit(Batch(removed=[Removal("ada", 1, 1, "settled", False)], users=[log("ada", 2)]))
    await ann.store.commit(Batch(users=[log("ada", 2, confirmed=2, epoch="another")]))
    await ann.once_more("commit")
    await ann.once_more("standing")
    found = await ann.kept("ada")
    assert (seqs(found), found.user.epoch) == ([2], "another")
    assert await ann.store.lost(["ada"]) is None
    await ann.store.commit(events("ada", 3))


async def test_what_a_node_asked_for_before_it_lost_a_log_comes_too_late(ann: Node, ben: Node) -> None:
    await ann.own("ada")
    await ann.store.commit(events("ada", 1))
    await ann.store.lost(["ada"])
    await ann.store.release(["ada"])
    await ben.own("ada")
    await ben.store.commit(events("ada", 2))
    for script in ("commit", "claim", "release", "standing"):
        await ann.once_more(script)
    assert await ben.store.lost(["ada"]) is None
    assert seqs(await ben.kept("ada")) == [1, 2]


async def test_a_look_that_a_commit_has_overtaken_finds_nothing_wrong(ann: Node) -> None:
    await ann.own("ada")

    async def commit() -> None:
        await ann.store.commit(events("ada", 1))

    ann.first = commit
    assert await ann.store.lost(["ada"]) is None
    await ann.store.commit(events("ada", 2))
    assert seqs(await ann.kept("ada")) == [1, 2]


async def test_a_look_at_a_log_that_was_claimed_anew_meanwhile_says_nothing_of_it(ann: Node) -> None:
    await ann.own("ada")

    async def go_and_come_back() -> None:
        await ann.store.release(["ada"])
        await ann.own("ada")

    ann.first = go_and_come_back
    assert await ann.store.lost(["ada"]) is None
    await ann.store.commit(events("ada", 1))
    assert seqs(await ann.kept("ada")) == [1]


async def test_a_claim_that_comes_late_is_its_nodes(ann: Node, ben: Node) -> None:
    await ann.own("ada")
    await ann.store.release(["ada"])
    await ann.once_more("claim")  # nobody there knows
    owner = await ben.store.claim("ada")
    assert owner.node == ann.store.node
    assert await ann.store.claim("ada") == owner
    await ann.store.commit(events("ada", 1))
    assert await ann.store.lost(["ada"]) is None


async def test_cancelled_a_commit_leaves_the_store_usable(ann: Node) -> None:
    await ann.own("ada")
    for seq in range(1, 7):
        with trio.CancelScope() as ann.scope:
            ann.lose = "cancelled" if seq % 2 else "made, cancelled"
            await ann.store.commit(events("ada", seq))
        assert ann.scope.cancelled_caught
    await ann.store.commit(events("ada", 7))
    assert seqs(await ann.kept("ada")) == [2, 4, 6, 7]


# -- what Redis loses


async def test_the_owner_before_says_that_what_was_taken_over_is_not_all(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    await ann.own("ada", "bob")
    await ann.store.commit(events("ada", 1))
    copy = await redis_server.call("DUMP", KEYS.log("ada"))
    await ann.store.commit(events("ada", 2))
    await redis_server.call("RESTORE", KEYS.log("ada"), 0, copy, "REPLACE")
    await ben.own("ada", "bob")
    before = (await ben.kept("ada")).user.epoch  # nothing there says that there was more
    await ben.store.commit(events("bob", 1))
    lost = await ann.store.lost(["ada", "bob"])
    assert lost is not None
    assert (lost.taken, lost.rolled_back) == ({"bob"}, {"ada"})
    with pytest.raises(Fenced) as fenced:
        await ben.store.commit(Batch(users=[log("ada", 3), log("bob", 2)]))
    assert fenced.value.rolled_back == {"ada"}
    assert (await ben.kept("ada")).user.epoch != before


async def test_who_has_let_a_log_go_notices_that_it_is_not_what_it_was(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    users = ["own", "later"]
    await ann.own(*users)
    for seq in (1, 2):
        copies = {user: await redis_server.call("DUMP", KEYS.log(user)) for user in users}
        await ann.store.commit(Batch(users=[log(user, seq) for user in users]))
    await ann.store.release(users)
    for user in users:
        await redis_server.call("RESTORE", KEYS.log(user), 0, copies[user], "REPLACE")
    assert (await ann.kept("own")).user.epoch != "epoch of own"
    assert await ann.store.lost(["own"]) is None
    # Another has begun with it meanwhile; what he is told then is as where he had lost something himself.
    await ben.store.claim("later", (await ben.store.claim("later")).token)
    assert (await ben.kept("later")).user.epoch == "epoch of later"
    assert (await ann.store.claim("later")).node == ben.store.node
    lost = await ben.store.lost(["later"])
    assert lost is not None
    assert lost.rolled_back == {"later"}
    epoch = (await ben.kept("later")).user.epoch
    assert epoch != "epoch of later"
    await ben.store.release(["later"])
    assert (await ann.kept("later")).user.epoch == epoch  # once is enough


async def test_that_a_log_is_void_may_be_lost_in_its_turn(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    users = ["ada", "bob"]
    await ann.own(*users)
    await ann.store.commit(Batch(users=[log(user, 1) for user in users]))
    copies = {user: await redis_server.call("DUMP", KEYS.log(user)) for user in users}
    await ann.store.commit(Batch(users=[log(user, 2) for user in users]))

    async def go_back(user: str) -> None:
        await redis_server.call("RESTORE", KEYS.log(user), 0, copies[user], "REPLACE")

    for user in users:
        await go_back(user)
    fenced = await ann.store.lost(users)
    assert fenced is not None
    assert fenced.rolled_back == set(users)
    await go_back("ada")
    assert (await ann.kept("ada")).user.epoch != "epoch of ada"
    # Who has begun it anew has done so for all.
    epoch = (await ben.kept("bob")).user.epoch
    assert epoch != "epoch of bob"
    await ben.store.release(["bob"])
    assert (await ann.kept("bob")).user.epoch == epoch


async def test_the_logs_that_were_let_go_are_remembered_up_to_a_point(
    ann: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws.redis.logs.MEMORY", 2)
    users = ["ada", "bob", "eve"]
    await ann.own(*users)
    for user in users:
        await ann.store.release([user])
    assert list(ann.store._logs._let_go) == ["bob", "eve"]
    await ann.own("eve")
    assert list(ann.store._logs._let_go) == ["bob"]


async def test_an_owner_before_is_known_by_his_token_alone_where_time_went_back(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    await ann.own("ada")
    await ann.store.release(["ada"])
    # The clock of the server before was ahead: so versions of owners follow each other closely.
    await redis_server.call("HSET", KEYS.log("ada"), "owner", "", "version", 2**52)
    await ann.own("ada")
    ann.lose = "not made"
    with pytest.raises(StoreError):
        await ann.store.commit(events("ada", 1))
    await ben.store.claim("ada", (await ben.store.claim("ada")).token)
    with pytest.raises(Fenced) as fenced:
        await ann.store.commit(events("ada", 1))
    assert fenced.value.taken == {"ada"}
    assert await ben.store.lost(["ada"]) is None


async def test_a_log_that_is_void_begins_anew_once(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada")
    batch = events("ada", 1, 2)
    batch.users = [log("ada", 2, reserved=20, confirmed=1, rest=2)]
    batch.sessions = [session("ada", "tab")]
    await ann.store.commit(batch)
    await redis_server.call("HSET", KEYS.log("ada"), "void", 1)
    with pytest.raises(Fenced):
        await ann.store.commit(events("ada", 3))
    found = await ann.kept("ada")
    assert found.user.epoch != "epoch of ada"
    assert (found.user.head, found.user.reserved, found.user.confirmed, found.user.rest) == (2, 20, 1, 2)
    assert (seqs(found), found.sessions, found.rest and found.rest.lesser) == ([1], [], 0)
    assert (await ann.kept("ada")).user.epoch == found.user.epoch
    await ann.store.release(["ada"])
    assert (await ann.kept("ada")).user.epoch == found.user.epoch


@pytest.mark.parametrize(
    ("persistence", "kind", "is_replicated", "is_sure"),
    [
        ("aof always", "server", False, True),
        ("aof always", "sentinel", True, True),
        ("aof always", "sentinel", False, False),
        ("aof everysec", "server", False, False),
        ("aof everysec", "cluster", True, False),  # a primary that is back soon makes its replicas what it is
    ],
)
async def test_of_one_who_died_with_redis_nobody_knows_what_he_did(
    ann: Node,
    ben: Node,
    redis_server: RedisServer,
    *,
    persistence: str,
    kind: Any,
    is_replicated: bool,
    is_sure: bool,
) -> None:
    ben.store._server, ben.store._kind = Server(persistence=persistence), kind
    ben.store._is_replicated = is_replicated
    users = ["ada", "seen", "released", "buried"]
    await ann.own(*users)
    await ann.store.commit(Batch(users=[log(user, 1) for user in users]))
    await ann.store.release(["released"])
    for user in users:
        assert await redis_server.call("HGET", KEYS.log(user), "life")
        await redis_server.call("HSET", KEYS.log(user), "life", "before the restart")
    for owned in ann.store._logs.owned.values():
        owned.whole_at -= LOOK_CLOSELY
    assert await ann.store.lost(["seen"]) is None
    await ann.store.leave()
    await ben.own("ada")
    assert await ben.store.orphans(10) == []
    await ben.own(*users)
    found = {user: (await ben.kept(user)).user.epoch == f"epoch of {user}" for user in users}
    assert found == {"ada": is_sure, "seen": True, "released": True, "buried": is_sure}
    owner = await ann.store.claim("ada", (await ann.store.claim("ada")).token)
    assert owner.node == ann.store.node
    epoch = (await ann.kept("ada")).user.epoch
    assert (await ben.kept("ada")).user.epoch == epoch


async def test_that_all_was_lost_is_logged(
    ann: Node, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await ann.store.beat(b"", 60.0)
    await ann.store.commit(Batch(revoked=[RevokedRecord("ada", 1.0, 2.0)]))
    assert len(await ann.store.revoked()) == 1
    await redis_server.call("FLUSHALL")
    assert await ann.store.revoked() == []
    with caplog.at_level(logging.ERROR):
        assert len(await ann.store.beat(b"", 60.0)) == 1
        await ann.store.beat(b"", 60.0)
    assert [record.message for record in caplog.records] == ["Redis has lost all that it held, or is another"]


async def test_while_redis_is_away_no_lease_lapses(ann: Node, ben: Node, redis_server: RedisServer) -> None:
    await ben.store.beat(b"dead before", 60.0)
    await ben.store.leave()
    third = Node(RedisStore(redis_server.url))
    async with trio.open_nursery() as nursery:
        await nursery.start(third.store.run)
        for node in (ann, third):
            await node.store.beat(b"", 60.0)
        # A hundred seconds in which nobody could beat.
        beat = int(await redis_server.call("HGET", KEYS.set, "beat"))
        await redis_server.call("HSET", KEYS.set, "beat", beat - 100_000)
        for node in (ann, third):
            await redis_server.call("ZADD", KEYS.leases, beat - 40_000, node.store.node)
        living = {node.node: node.left for node in await ann.store.beat(b"", 60.0)}
        assert set(living) == {ann.store.node, third.store.node}
        assert all(left > 50.0 for left in living.values())
        # One that is silent while another beats is dead.
        await redis_server.call("ZADD", KEYS.leases, beat - 40_000, third.store.node)
        assert [node.node for node in await ann.store.beat(b"", 60.0)] == [ann.store.node]
        nursery.cancel_scope.cancel()


# -- entries too many


async def test_of_a_user_of_whom_nothing_is_kept_nothing_is_left(
    ann: Node, redis_server: RedisServer
) -> None:
    await ann.own("ada", "bob")
    batch = events("ada", 1, 2, owned_id=True, expires=5.0, priority=1)
    batch.users = [log("ada", 2, rest=1, due=5.0)]
    batch.sessions = [session("ada", "tab")]
    batch.keys = [("ada", KeyRecord("k", 1, "evicted"))]
    await ann.store.commit(batch)
    await ann.store.commit(Batch(confirmed=[("ada", 1)]))
    await ann.store.commit(Batch(closed=["ada"]))
    assert await redis_server.call("KEYS", "*{ada}*") == [KEYS.log("ada").encode()]
    await ann.store.release(["ada", "bob"])
    assert await redis_server.call("KEYS", "*") == [KEYS.leases.encode()]
    await ann.store.leave()
    assert await redis_server.call("KEYS", "*") == []


async def test_an_index_of_the_rest_is_just_of_the_rest(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada")
    seven = events("ada", *range(1, 8), owned_id=True, expires=5.0, priority=1)
    await ann.store.commit(seven)
    index = KEYS.of("ada")[7:10]

    async def indexed() -> list[list[int]]:
        mortal, lesser = [await redis_server.call("ZRANGE", key, 0, -1) for key in index[:2]]
        ids = await redis_server.call("HVALS", index[2])
        return [sorted(map(int, found)) for found in (mortal, lesser, ids)]

    for rest, expected in ((0, []), (4, [4, 5, 6, 7]), (6, [6, 7]), (3, [3, 4, 5, 6, 7])):
        await ann.store.commit(Batch(users=[log("ada", 7, rest=rest)]))
        assert await indexed() == [expected] * 3, rest
    replaced = event("ada", 5)
    await ann.store.commit(
        Batch(
            removed=[Removal("ada", 6, 6, "expired", True)], events=[replaced], users=[log("ada", 7, rest=3)]
        )
    )
    assert await indexed() == [[3, 4, 7]] * 3
    await ann.store.commit(Batch(users=[log("ada", 7)]))
    assert await redis_server.call("EXISTS", *index) == 0


async def test_entries_that_a_crash_has_left_mislead_nobody(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    for node in (ann, ben):
        await node.store.beat(b"", 60.0)
    await ben.own("ada", "bob", "eve")
    await ben.store.commit(
        Batch(users=[log("ada", 1, due=5.0), log("bob", 1, due=5.0), log("eve", 1, due=5.0)])
    )
    # Due is whom somebody owns; the node that has died never came to claim one user, and had released another.
    await redis_server.call("ZADD", KEYS.due, 5.0, "ada")
    assert await ann.store.due(10.0, 10) == []
    owned = KEYS.owned(ben.store.node)
    await ben.store.release(["bob"])
    await ann.own("eve")
    await redis_server.call("SADD", owned, "bob", "eve", "never there")
    await redis_server.call("ZADD", KEYS.users, 0, "never there")
    await redis_server.call("ZREM", KEYS.due, "bob")
    await ben.store.leave()
    assert await ann.store.orphans(10) == []
    assert await redis_server.call("EXISTS", owned) == 0
    assert sorted(await ann.store.due(10.0, 10)) == ["ada", "bob"]
    assert await ann.store.users("", 10) == ["ada", "bob", "eve"]
    await ann.own("ada")
    assert await ann.store.due(10.0, 10) == ["bob"]
    assert await redis_server.call("ZRANGE", KEYS.leases, 0, -1) == [ann.store.node.encode()]


async def test_lists_of_whom_a_node_owns_are_right_again_in_time(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    await ann.own("ada", "bob")
    assert (await ben.store.claim("ada")).node == ann.store.node
    assert await redis_server.call("EXISTS", KEYS.owned(ben.store.node)) == 0
    await redis_server.call("SREM", KEYS.owned(ann.store.node), "ada")
    await redis_server.call("ZREM", KEYS.users, "ada")
    ann.store._logs.owned["ada"].whole_at -= LOOK_CLOSELY
    assert await ann.store.lost(["ada", "bob"]) is None
    assert sorted(await redis_server.call("SMEMBERS", KEYS.owned(ann.store.node))) == [b"ada", b"bob"]
    assert await redis_server.call("ZRANGE", KEYS.users, 0, -1) == [b"ada", b"bob"]


async def test_a_log_that_was_let_go_as_it_was_claimed_is_found_by_name(ann: Node, ben: Node) -> None:
    await ann.own("ada")
    enlist = ben.store._lists.enlist

    async def enlist_and_wait(users: Collection[str]) -> None:
        await enlist(users)
        await ann.store.release(["ada"])

    ben.store._lists.enlist = enlist_and_wait  # type: ignore[method-assign]
    await ben.own("ada")
    ben.store._lists.enlist = enlist  # type: ignore[method-assign]
    await ben.store.commit(events("ada", 1))
    assert await ann.store.users("", 10) == ["ada"]


async def test_what_is_left_of_a_node_that_lives_again_is_its_own(
    ann: Node, ben: Node, redis_server: RedisServer
) -> None:
    await ben.store.beat(b"", 60.0)
    await ben.own("ada")
    await ben.store.leave()
    assert await ann.store.orphans(10) == []
    owned = KEYS.owned(ben.store.node)
    assert await redis_server.call("EXISTS", owned) == 0
    await ben.store.beat(b"", 60.0)
    await ben.own("ada")
    await ann.once_more("delist")
    assert await redis_server.call("SMEMBERS", owned) == [b"ada"]


# -- damage


def of(user: str) -> Batch:
    """Three events that nobody has confirmed, a session that has acked the first, a key of what is gone, and a run."""
    run = Run("r", 10)
    run.catch_up(Happened("agent_started", b"{}", 1, 1_700_000_000.0, "a"))
    batch = events(user, 1, 2, 4)
    batch.sessions = [session(user, "tab", acked=1)]
    batch.keys = [(user, KeyRecord("gone", 3, "evicted"))]
    batch.runs = [run.record(user, 2, 2)]
    return batch


HARM: list[Callable[[bytes], bytes]] = [
    lambda value: b"",
    lambda value: value[:3],
    lambda value: value[:-1],
    lambda value: bytes([*value[:-1], value[-1] ^ 1]),
    lambda value: bytes([value[0] ^ 1, *value[1:]]),
    lambda value: b"\xff" * len(value),
]


@pytest.mark.parametrize("place", ["events", "sessions", "runs", "keys", "user", "gone"])
async def test_what_is_damaged_is_set_aside_and_all_else_is_there(
    ann: Node, redis_server: RedisServer, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KEYS.of("ada")
    for count, harm in enumerate(HARM, 1):
        await ann.own("ada")
        batch = of("ada")
        batch.closed = ["ada"]
        await ann.store.commit(batch)
        match place:
            case "events":
                [value] = await redis_server.call("ZRANGE", keys[1], 2, 2, "BYSCORE")
                await redis_server.call("ZREM", keys[1], value)
                await redis_server.call("ZADD", keys[1], 2, harm(value))
            case "keys":
                [value] = await redis_server.call("ZRANGE", keys[4], 0, -1)
                await redis_server.call("ZREM", keys[4], value)
                await redis_server.call("ZADD", keys[4], 3, b"\xff" + harm(value))
            case "sessions" | "runs":
                key, name = (keys[3], "tab") if place == "sessions" else (keys[5], "r")
                value = await redis_server.call("HGET", key, name)
                await redis_server.call("HSET", key, name, harm(value))
            case _:
                value = await redis_server.call("HGET", keys[0], place)
                await redis_server.call("HSET", keys[0], place, harm(value) or b"x")
        with caplog.at_level(logging.CRITICAL):
            found = await ann.kept("ada")
        assert seqs(found) == ([1, 4] if place == "events" else [1, 2, 4])
        assert [(run.first, run.last, run.reason) for run in found.damaged] == (
            [(2, 2, "reset")] if place == "events" else []
        )
        is_new = place in ("user", "gone")
        assert (found.user.epoch == "epoch of ada") != is_new
        assert len(found.sessions) == (place != "sessions" and not is_new)
        assert len(found.keys) == (place != "keys")
        assert len(found.runs) == (place != "runs")
        assert ann.store.stats()["quarantined"] == count
        [told] = await redis_server.call("LRANGE", keys[10], -1, -1)
        assert json.loads(told)["place"] == ("log" if is_new else place)
        again = await ann.kept("ada")
        assert (seqs(again), again.user.epoch, again.damaged) == (seqs(found), found.user.epoch, [])
        assert ann.store.stats()["quarantined"] == count
    await ann.store.open()
    assert ann.store.stats()["quarantined"] == len(HARM)


async def test_of_a_rest_what_is_damaged_is_set_aside(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada")
    batch = events("ada", *range(1, 9), owned_id=True, expires=5.0, priority=1)
    batch.users = [log("ada", 8, rest=3)]
    await ann.store.commit(batch)
    key = KEYS.of("ada")[1]
    [value] = await redis_server.call("ZRANGE", key, 5, 5, "BYSCORE")
    await redis_server.call("ZREM", key, value)
    await redis_server.call("ZADD", key, 5, b"nonsense")
    for way in ({}, {"mortal": True}, {"lesser": True}):
        found = await ann.store.read("ada", Part(first=3, last=8, most=10, **way))
        assert [event.seq for event in found] == [3, 4, 6, 7, 8]
    assert ann.store.stats()["quarantined"] == 1
    kept = await ann.kept("ada")
    assert kept.rest is not None
    assert kept.rest.lesser == 5


async def test_an_event_elsewhere_than_it_was_put_is_none(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada", "bob")
    await ann.store.commit(events("ada", 1))
    await ann.store.commit(events("bob", 2))
    [of_bob] = await redis_server.call("ZRANGE", KEYS.of("bob")[1], 0, -1)
    await redis_server.call("ZADD", KEYS.of("ada")[1], 2, of_bob)
    assert seqs(await ann.kept("ada")) == [1]


async def test_a_log_whose_record_is_gone_goes_on_with_all_its_events(
    ann: Node, redis_server: RedisServer
) -> None:
    await ann.own("ada")
    await ann.store.commit(events("ada", *range(1, 501)))
    await redis_server.call("HDEL", KEYS.log("ada"), "user", "rest")
    found = await ann.kept("ada")
    assert (found.user.head, found.user.reserved, found.user.rest) == (500, 501, 201)
    assert seqs(found) == list(range(1, 201))
    assert found.rest is not None
    assert len(await ann.store.read("ada", Part(first=201, last=500, most=1000))) == 300


async def test_what_a_newer_version_has_written_is_left_alone(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada")
    await ann.store.commit(events("ada", 1))
    [value] = await redis_server.call("ZRANGE", KEYS.of("ada")[1], 0, -1)
    await redis_server.call("ZREM", KEYS.of("ada")[1], value)
    newer = records._sealed(value[5:], records.seed("ada"), 2)
    await redis_server.call("ZADD", KEYS.of("ada")[1], 1, newer)
    with pytest.raises(StoreError, match="newer version"):
        await ann.store.load("ada")
    assert await redis_server.call("ZRANGE", KEYS.of("ada")[1], 0, -1) == [newer]
    await redis_server.call("HSET", KEYS.set, "format", 2)
    with pytest.raises(StoreError, match=r"newer version of trio-ws \(format 2"):
        await ann.store.open()


async def test_nonsense_in_the_log_does_not_stop_commits(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada")
    await ann.store.commit(events("ada", 1, 2, owned_id=True))
    heads: list[Any] = [{}, 7, [1, 2, 3], [3, 3, "i", "t", "3", 1.0, None, None, 8, None]]
    heads += [[3, 3, "i", "t", 3, 1.0, expires, None, 8, None] for expires in (math.nan, "x", math.inf)]
    heads += [
        [3, None, None, "t", 3, 1.0, None, None, 8, None],
        ["3", "3", 3, "t", 3, 1.0, None, None, "8", None],
    ]
    nonsense = [b"x", b"\xc1" * 40, *(b"0123456" + msgspec.msgpack.encode(head) for head in heads)]
    for at, value in enumerate(nonsense, 3):
        await redis_server.call("ZADD", KEYS.of("ada")[1], at, value)
    await ann.store.commit(Batch(users=[log("ada", 20, rest=1)]))
    batch = Batch(removed=[Removal("ada", 1, 20, "settled", True)], users=[log("ada", 20, rest=1)])
    await ann.store.commit(batch)
    assert [key.id for key in (await ann.kept("ada")).keys if key.id != "i"] == ["id-1", "id-2"]


async def test_a_log_that_nothing_can_be_made_of_is_in_nobodys_way(
    ann: Node, redis_server: RedisServer
) -> None:
    users = ["version", "rest", "events", "sessions", "newest", "ada"]
    await ann.own(*users)
    await ann.store.commit(
        Batch(events=[event(user, 1) for user in users], users=[log(user, 1) for user in users])
    )
    for field in ("version", "rest", "newest"):
        await redis_server.call("HSET", KEYS.log(field), field, "nonsense")
    for place, key in (("events", KEYS.of("events")[1]), ("sessions", KEYS.of("sessions")[3])):
        await redis_server.call("SET", key, place)
    batch = Batch(
        events=[event(user, 2) for user in users],
        users=[log(user, 2) for user in users],
        sessions=[session(user, "tab") for user in users],
    )
    with pytest.raises(Fenced) as fenced:
        await ann.store.commit(batch)
    assert fenced.value.taken == set(users[:4])
    assert seqs(await ann.kept("ada")) == seqs(await ann.kept("newest")) == [1, 2]
    await ann.own(*users)
    for user in users[:4]:
        with pytest.raises(StoreError, match="refused"):
            await ann.store.load(user)
    for place, score in (("events", "inf"), ("ids", "x")):
        await ann.own(place)
        await redis_server.call("DEL", *KEYS.of(place))
        await ann.own(place)
        await ann.store.commit(Batch(events=[event(place, 1)], users=[log(place, 9, rest=2)]))
        await redis_server.call("ZADD", KEYS.of(place)[1], score if place == "events" else 5, b"nonsense")
        await redis_server.call("HSET", KEYS.of(place)[9], b"\xff", "x", "k", score)
        found = await ann.kept(place)
        assert found.rest is not None
        assert (seqs(found), found.rest.keys) == ([1], {})
        assert len(await ann.store.read(place, Part(first=2, last=9, most=9))) == 0


async def test_what_is_no_log_is_in_nobodys_way(ann: Node, ben: Node, redis_server: RedisServer) -> None:
    await ann.store.beat(b"", 60.0)
    users = ["ada", "bob", "eve"]
    await ben.own(*users)
    await ben.store.commit(Batch(users=[log(user, 1, due=5.0) for user in users]))
    for key in (KEYS.log("ada"), KEYS.of("bob")[1]):
        await redis_server.call("DEL", key)
        await redis_server.call("SET", key, "somebody else's")
    fenced = await ben.store.lost(users)
    assert fenced is not None
    assert fenced.taken == {"ada"}
    assert "eve" in await ann.store.users("", 10)
    await ben.store.leave()
    await ann.store.orphans(10)
    assert "eve" in await ann.store.due(10.0, 10)
    await ann.own("eve")
    for user in ("ada", "bob"):
        with pytest.raises(StoreError, match="refused"):
            await ann.kept(user)
    await ann.store.release(users)
    assert (await ben.store.claim("eve")).node == ben.store.node


async def test_what_is_no_name_is_in_nobodys_way(
    ann: Node, ben: Node, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws.redis.store.PAGE", 2)
    await ben.own("ada")
    await ben.store.commit(events("ada", 1))
    for key in (KEYS.leases, KEYS.users, KEYS.due):
        for name in (b"\xff", b"\xfe", b"\xfd", b"\x00\x80"):
            await redis_server.call("ZADD", key, 0, name)
    await redis_server.call("ZADD", KEYS.leases, "inf", b"\xfc", "inf", "eve")
    await redis_server.call("SADD", KEYS.owned(ben.store.node), b"\xff")
    await redis_server.call("HSET", KEYS.revoked, b"\xff", b"")
    await redis_server.call("HSET", KEYS.set, "beat", b"\x91", "revoked", "1", "quarantined", b"\xff")
    await redis_server.call("HSET", KEYS.log("ada"), "due", "x")
    living = await ann.store.beat(b"", 60.0)
    assert {"eve", ann.store.node} <= {record.node for record in living}
    assert all(math.isfinite(record.left) for record in living)
    assert await ann.store.orphans(10) == await ann.store.due(1e9, 10) == await ann.store.revoked() == []
    assert await ann.store.users("", 10) == ["ada"]
    await ann.store.open()


async def test_a_log_whose_owner_is_nonsense_is_nobodys(ann: Node, redis_server: RedisServer) -> None:
    for owner in (b"\xff", b"nonsense", b"/", b"ben/"):
        await redis_server.call("HSET", KEYS.log("ada"), "owner", owner)
        ann.store._logs.owned.clear()
        assert (await ann.store.claim("ada")).node == ann.store.node


async def test_a_log_whose_version_is_above_all_is_refused(ann: Node, redis_server: RedisServer) -> None:
    await ann.own("ada", "bob")
    await ann.store.commit(events("bob", 1))
    for version in ("9" * 20, "9" * 5000):
        await redis_server.call("HSET", KEYS.log("ada"), "version", version)
        with trio.fail_after(5), pytest.raises(StoreError, match="its version makes no sense"):
            await ann.store.load("ada")
        await ann.own("ada")
    assert seqs(await ann.kept("bob")) == [1]


@pytest.mark.parametrize(
    "body", [b"\x91" * 5000 + b"\xc0", b"\x97\xa1\xff" + b"\xc0" * 6], ids=["deep", "no text"]
)
async def test_what_is_damaged_before_it_was_sealed_is_set_aside(
    ann: Node, redis_server: RedisServer, body: bytes
) -> None:
    await ann.own("ada")
    await ann.store.commit(of("ada"))
    keys = KEYS.of("ada")
    await redis_server.call("HSET", keys[3], "tab", records._sealed(body, records.seed("ada", "tab")))
    await redis_server.call("HSET", keys[0], "user", records._sealed(body, records.seed("ada")))
    event = records._sealed(len(body).to_bytes(2) + body, records.seed("ada"))
    await redis_server.call("ZADD", keys[1], 1e300, event)
    found = await ann.kept("ada")
    assert seqs(found) == [1, 2, 4]
    assert found.sessions == []


# -- keys, records, the server


def test_records_come_back_as_they_were() -> None:
    everything = EventRecord(
        "ada",
        1,
        2**53 - 1,
        "i" * 128,
        "t",
        0,
        b"\0\xff" * 9,
        1.5,
        2.5,
        "k",
        True,
        True,
        True,
        True,
        True,
        "r",
    )
    for record in (everything, everything._replace(seq=1, expires=None, key=None, run=None, payload=b"")):
        for flags in range(32):
            bits = {
                name: bool(flags >> n & 1)
                for n, name in enumerate(("merge", "tracked", "truncated", "owned_id", "confirmed"))
            }
            told = record._replace(**bits)
            assert records.event_of("ada", records.event_value(told, 7), 7) == told


def test_all_keys_of_a_user_have_one_tag() -> None:
    for user, tag in (("ada", "ada"), ("{a}", "%7Ba%7D"), ("a%7Bb", "a%257Bb"), ("}", "%7D")):
        keys = KEYS.of(user)
        assert {key[key.index("{") + 1 : key.index("}")] for key in keys} == {tag}
        assert KEYS.log(user) == keys[0]
        assert set(KEYS.to_look(user)) <= set(keys)
    mine = set(KEYS.of("cluster"))
    assert not mine & set(vars(KEYS).values())
    with pytest.raises(InvalidConfig, match="braces"):
        RedisStore("redis://localhost", prefix="{a}")


async def test_what_is_to_be_known_of_the_server(
    ann: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ahead, words in ((0, ["may lose"]), (60, ["may lose", "clocks of this machine"])):
        now = time.time() + ahead
        monkeypatch.setattr("trio_ws.redis.server.time", SimpleNamespace(time=lambda now=now: now))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            await ann.store.open()
        warnings = [record.message for record in caplog.records if record.name == "trio_ws.redis.server"]
        assert len(warnings) == len(words)
        assert all(word in warning for word, warning in zip(words, warnings, strict=True))
    stats = ann.store.stats()
    assert (stats["kind"], stats["persistence"], stats["owned"]) == ("redis", "none", 0)
    assert stats["version"].removeprefix("valkey ")[0].isdecimal()


@pytest.mark.parametrize("name", ["redis_mode", "server_mode"])
async def test_a_sentinel_is_known_by_what_redis_and_valkey_call_its_mode(name: str) -> None:
    class Told:
        async def commands(self, commands: list[Any], keys: list[str]) -> list[bytes]:
            return [f"# Server\r\n{name}:sentinel\r\n".encode()]

    with pytest.raises(StoreError, match="this is a sentinel"):
        await Server.examined(Told(), "key", is_cluster=False)  # type: ignore[arg-type]


async def test_who_may_not_hear_of_other_nodes_is_no_node(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    await redis_server.call(
        "ACL", "SETUSER", "deaf", "reset", "on", ">secret", "~*", "resetchannels", "+@all"
    )
    store = RedisStore(redis_server.url.replace("//", "//deaf:secret@"))
    await nursery.start(store.run)
    with pytest.raises(StoreError, match="its user may not do this"):
        await store.open()


async def test_a_server_that_would_evict_is_refused_and_one_that_is_full_refuses(
    redis_directory: Any, nursery: trio.Nursery
) -> None:
    server = RedisServer(redis_directory, aof="always", options={"maxmemory-policy": "allkeys-lru"})
    await server.start()
    try:
        store = RedisStore(server.url)
        await nursery.start(store.run)
        with pytest.raises(StoreError, match="maxmemory-policy allkeys-lru: it would evict"):
            await store.open()
        await server.configure(maxmemory_policy="noeviction")
        await store.open()
        assert store.stats()["persistence"] == "aof always"
        await store.claim("ada")
        await store.commit(events("ada", 1, 2))
        # Full: nothing new is taken, but what frees memory, and where sessions are.
        await server.configure(maxmemory=1)
        with pytest.raises(StoreError, match="maxmemory"):
            await store.commit(events("ada", 3))
        await store.commit(Batch(confirmed=[("ada", 2)], sessions=[session("ada", "tab", acked=2)]))
        await store.commit(Batch(removed=[Removal("ada", 1, 1, "settled", True)], users=[log("ada", 2)]))
        with pytest.raises(StoreError, match="maxmemory"):
            await store.claim("bob")
        # Nobody dies of it: nodes live on, and logs come to others.
        other = RedisStore(server.url)
        await nursery.start(other.run)
        for node in (store, other):
            await node.beat(b"", 2.0)
        owner = await other.claim("ada")
        assert (await other.claim("ada", owner.token)).node == other.node
        await other.release(["ada"])
        await store.claim("ada")
        await server.configure(maxmemory=0)
        await store.commit(events("ada", 3))
        kept = await store.load("ada")
        assert kept is not None
        assert [(event.seq, event.confirmed) for event in kept.events] == [(2, True), (3, False)]
    finally:
        server.kill()
