"""The link where there is more than one server: sentinels, and a cluster. All with real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from loopback.redis import RedisCluster, RedisServer, Sentinels, until

from tests.store.records import event, log, session
from trio_ws.core.records import Batch, KeyRecord, Part, Removal, RevokedRecord, RunRecord
from trio_ws.errors import StoreError
from trio_ws.redis import RedisStore
from trio_ws.redis.cluster import slot_of
from trio_ws.redis.connection import Connection
from trio_ws.redis.line import Line, to
from trio_ws.redis.link import Redis
from trio_ws.redis.refusals import Refused
from trio_ws.redis.script import Script
from trio_ws.redis.url import Place, parse

SET = Script("set", "return redis.call('SET', KEYS[1], ARGV[1])")


async def test_sentinels(redis_directory: Path, nursery: trio.Nursery) -> None:
    async with Sentinels(redis_directory) as servers:
        redis = Redis(servers.url, replicas=1)
        await nursery.start(redis.run)
        received: list[bytes] = []
        await nursery.start(redis.subscribe, ["channel"], received.append)
        assert await redis.scripts(SET, [(["a"], ["1"])], replicated=True) == [b"OK"]
        assert await servers.replica.call("GET", "a") == b"1"

        await is_refused(f"redis://127.0.0.1:{servers.sentinels[0].port}", "this is a sentinel")
        await is_refused(servers.primary.url.replace("://", "+sentinel://") + "/events", "is no sentinel")

        servers.primary.kill()

        async def written() -> bool:
            try:
                return await redis.script(SET, ["b"], ["2"]) == b"OK"
            except StoreError:
                return False

        await until(written)
        assert await servers.replica.call("MGET", "a", "b") == [b"1", b"2"]
        [missed] = await redis.scripts(SET, [(["a"], ["3"])], replicated=True)
        assert isinstance(missed, Refused)
        assert missed.code == "NOREPLICAS"

        async def heard() -> bool:
            await redis.publish("channel", b"hello")
            return bool(received)

        await until(heard)


async def is_refused(url: str, why: str) -> None:
    """A store does not open at `url`, and waiting would not mend that."""
    store = RedisStore(url)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        with pytest.raises(StoreError, match=why) as caught:
            await store.open()
        assert not caught.value.passes
        nursery.cancel_scope.cancel()


async def test_lines_leave_a_primary_that_was_deposed_each_by_itself() -> None:
    old, new = Place("127.0.0.1", 1), Place("127.0.0.1", 2)
    lines = []
    for place in (old, new):
        line = Line(to(place), parse("redis+sentinel://host/name"), 2)
        line._connection = Connection(trio.testing.memory_stream_pair()[0], place, 2)
        lines.append((line, line._connection))
    for line, _ in lines:
        line.move(new)
    assert [connection.failure for _, connection in lines] == ["the primary is 127.0.0.1:2 now", None]


def test_slots() -> None:
    # As `redis-cli CLUSTER KEYSLOT` tells.
    assert slot_of("123456789") == 12739
    assert slot_of("trio-ws:{ada}:log") == slot_of("ada") == slot_of(b"x{ada}{bob}")
    assert slot_of("{}ada") != slot_of("ada")
    assert slot_of("a{b") == slot_of(b"a{b")


async def keeps_logs(servers: list[RedisServer]) -> None:
    """All scripts of a store run in a cluster: users are everywhere in it, and the keys of each in one place."""
    users = [f"user{n}" for n in range(20)]
    whole = Batch(
        events=[
            event(user, seq, expires=5.0, priority=1, owned_id=True) for user in users for seq in (1, 2, 3)
        ],
        users=[log(user, 3, rest=3, due=5.0) for user in users],
        sessions=[session(user, "tab") for user in users],
        keys=[(user, KeyRecord("key", 1, "evicted")) for user in users],
        runs=[RunRecord(user, "run", True, None, b"{}") for user in users],
        confirmed=[(user, 2) for user in users],
        revoked=[RevokedRecord("ada", 1.0, 2.0)],
    )
    ann, ben = (RedisStore(f"redis+cluster://127.0.0.1:{servers[0].port}") for _ in range(2))
    async with trio.open_nursery() as nursery:
        for store, server in zip((ann, ben), servers[1:], strict=True):
            await nursery.start(store.run)
            await server.configure(maxmemory_policy="allkeys-lru")
            with pytest.raises(StoreError, match="it would evict"):
                await store.open()
            await server.configure(maxmemory_policy="noeviction")
            await store.open()
            await store.beat(b"", 60.0)
        for user in users:
            await ann.claim(user)
        await ann.commit(whole)
        await ann.commit(Batch(removed=[Removal(user, 1, 1, "settled", True) for user in users]))
        assert await ann.lost(users) is None
        for user in users:
            kept = await ann.load(user)
            assert kept is not None
            assert kept.rest is not None
            assert (len(kept.events), len(kept.runs), len(kept.sessions), kept.rest.lesser) == (1, 1, 1, 1)
            assert [key.id for key in kept.keys] == ["id-1"]
            assert len(await ann.read(user, Part(first=3, last=3, most=1, mortal=True))) == 1
        assert await ben.users("", 100) == sorted(users)
        assert [record.user for record in await ben.revoked()] == ["ada"]
        await ann.leave()
        assert len(await ben.orphans(100)) == 20
        await ann.release(users[:10])
        assert len(await ben.due(10.0, 100)) == 20
        await ben.put("name", b"value", 60.0)
        assert await ann.take("name") == b"value"
        assert await ben.send(ann.node, b"lost") is not await tells_who_listens(servers[0])
        await ben.commit(Batch())
        nursery.cancel_scope.cancel()


async def tells_who_listens(server: RedisServer) -> bool:
    """Whether it can be told in a cluster who hears a message: since Redis 7."""
    return not (await server.info())["redis_version"].startswith("6.")


async def test_a_cluster(redis_directory: Path, nursery: trio.Nursery) -> None:
    async with RedisCluster(redis_directory) as cluster:
        first, second, _ = cluster.servers
        await keeps_logs(cluster.servers)
        await is_refused(first.url, "it is one of a Redis Cluster, whose URL begins with redis.cluster://")
        redis = Redis(f"redis+cluster://127.0.0.1:{second.port}", timeout=0.5)
        await nursery.start(redis.run)
        keys = [f"{{user{n}}}" for n in range(30)]
        assert await redis.scripts(SET, [([key], [key]) for key in keys]) == [b"OK"] * 30
        assert await redis.commands([("GET", key) for key in keys], keys) == [key.encode() for key in keys]
        received: list[bytes] = []
        await nursery.start(redis.subscribe, keys[:5], received.append)
        heard_by = [1] * 5 + [0] if await tells_who_listens(first) else [None] * 6
        assert [await redis.publish(key, key.encode()) for key in keys[:6]] == heard_by

        # A slot moves: the call is first sent on by ASK, and later by MOVED.
        key = next(key for key in keys if slot_of(key) < 5000)
        slot, there = slot_of(key), second
        ids = [(await server.call("CLUSTER", "MYID")).decode() for server in cluster.servers]
        await there.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await first.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        held = await first.call("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        assert key.encode() in held
        await first.call("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *held)
        assert await redis.command("GET", key, key=key) == key.encode()
        assert await redis.script(SET, [key], ["asked"]) == b"OK"
        for server in (there, first):
            await server.call("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        assert await redis.scripts(SET, [([one], ["moved"]) for one in keys]) == [b"OK"] * 30
        assert await there.call("GET", key) == b"moved"

        async def heard() -> bool:
            count = await redis.publish(key, b"hello")
            return count is None or count == (key in keys[:5])

        await until(heard)

        # A server stands still: what is elsewhere is answered all the same.
        cluster.servers[2].pause()
        assert (
            sum(isinstance(reply, bytes) for reply in await redis.commands([("GET", k) for k in keys], keys))
            > 10
        )
        cluster.servers[2].go_on()

        async def whole() -> bool:
            return not any(
                isinstance(reply, StoreError)
                for reply in await redis.commands([("GET", k) for k in keys], keys)
            )

        await until(whole)
