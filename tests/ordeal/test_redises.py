"""How scripts/chaos breaks each form of Redis: it really is broken, and whole again afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import trio
import trio.testing
from loopback.redis import RedisServer, until
from ordeal.redises import Cluster, Replicated, Single

from trio_ws.errors import StoreError
from trio_ws.redis.cluster import slot_of
from trio_ws.redis.link import Redis


async def test_power_that_is_lost_takes_what_came_last(redis_directory: Path) -> None:
    async with Single(redis_directory, "everysec") as redis:
        [server] = redis.servers
        await server.call("SET", "first", "1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(redis.lose_power, 0, 0.0, 1.5)
            await trio.testing.wait_all_tasks_blocked()
            await server.call("SET", "last", "1")
        assert await server.call("MGET", "first", "last") == [b"1", None]


async def test_a_primary_is_dead_until_its_replica_has_taken_over(redis_directory: Path) -> None:
    async with Replicated(redis_directory, "none") as redis:
        sentinel = redis._of_sentinels.sentinels[0]
        await redis.kill(0, seconds=1.0)
        told = await sentinel.call("SENTINEL", "master", redis._of_sentinels.name)
        # On a machine that has much to do they may have done it more than once.
        assert int(dict(zip(told[::2], told[1::2], strict=True))[b"config-epoch"]) > 0

        async def one_is_the_others() -> bool:
            return {(await server.info())["role"] for server in redis.servers} == {"master", "slave"}

        await until(one_is_the_others)


async def test_in_a_cluster_slots_move_and_replicas_take_over(
    redis_directory: Path, nursery: trio.Nursery
) -> None:
    async with Cluster(redis_directory, "none") as redis:
        link = Redis(redis.url)
        await nursery.start(link.run)

        async def owner() -> RedisServer:
            """Who has the slot of the key."""
            for first, last, (_, port, *_), *_ in await redis.servers[0].call("CLUSTER", "SLOTS"):
                if first <= slot_of("name") <= last:
                    return next(server for server in redis.servers if server.port == port)
            raise AssertionError

        async def epoch() -> int:
            info = await redis.servers[0].call("CLUSTER", "INFO")
            return int(info.partition(b"cluster_current_epoch:")[2].split()[0])

        await link.command("SET", "name", "1", key="name")
        before = await owner()
        await redis.move("name", random.Random(1))
        after = await owner()
        assert after is not before
        assert await link.command("GET", "name", key="name") == b"1"
        primaries = [server for server in redis.servers if (await server.info())["role"] == "master"]
        elections = await epoch()
        await redis.kill(primaries.index(after), seconds=1.0)
        assert await epoch() > elections

        async def answers() -> bool:
            try:  # what the replica had not heard yet is gone
                return await link.command("EXISTS", "name", key="name") in (0, 1)
            except StoreError:
                return False

        await until(answers)
        nursery.cancel_scope.cancel()
