"""What nodes share, in each of its forms: one Redis, a primary under sentinels, a cluster; and how it is broken.

Whatever is done to it, it is whole again afterwards: all servers run, and each primary that has replicas has told them
all it knows.
"""

from __future__ import annotations

import random
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio
from loopback.redis import RedisCluster, RedisServer, Sentinels, until

from trio_ws.redis.cluster import slot_of

QUICK: Final = 0.2
"""Seconds. A primary is away for less, and back before anybody misses it; or until a replica has taken over."""
PATIENCE: Final = 60.0
"""Seconds in which that has happened, and in which all is whole again: on a machine that has other work to do."""
HERE: Final = "127.0.0.1"
AOF: Final = {"always": "always", "everysec": "everysec", "none": None}


class Single:
    """One server; the others are made of it.

    Args:
      durability: what is on the disk, as `rounds.DURABILITIES`.

    Attributes:
      servers: all that there are.
      url: how nodes are told of it.
    """

    def __init__(self, directory: Path, durability: str) -> None:
        self.servers = [RedisServer(directory, aof=AOF[durability])]
        self.url = self.servers[0].url
        self._changing = trio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Single:
        await self._stack.enter_async_context(self.servers[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def kill(self, number: int, seconds: float) -> None:
        """Kill a server that has writes, and start it again after that time."""
        async with self._changing:
            server = await self._primary(number)
            server.kill()
            await self._come_back(server, seconds)

    async def lose_power(self, number: int, seconds: float, lost: float) -> None:
        """As `kill`, and nothing of the last `lost` seconds is on its disk."""
        async with self._changing:
            server = await self._primary(number)
            await server.lose_power(lost)
            await self._come_back(server, seconds)

    async def stop(self, number: int, seconds: float) -> None:
        """A server that has writes stands still."""
        async with self._changing:
            server = await self._primary(number)
            server.pause()
            try:
                await trio.sleep(seconds)
            finally:
                server.go_on()
            await self._get_whole()

    async def fill(self, seconds: float) -> None:
        """All of them refuse to grow."""
        async with self._changing:
            for most in (1, 0):
                for server in self.servers:
                    await server.configure(maxmemory=most)
                await trio.sleep(seconds * most)

    async def _come_back(self, server: RedisServer, seconds: float) -> None:
        await self._be_away(server, seconds)
        await server.start()
        await self._get_whole()

    async def _primary(self, _number: int) -> RedisServer:
        return self.servers[0]

    async def _be_away(self, _server: RedisServer, seconds: float) -> None:
        """Wait until a server that is dead may come back."""
        await trio.sleep(seconds)

    async def _get_whole(self) -> None:
        """Wait until nothing is amiss."""


class Replicated(Single):
    """A primary and its replica, under three sentinels."""

    def __init__(self, directory: Path, durability: str) -> None:
        self._of_sentinels = Sentinels(directory, aof=AOF[durability])
        self.servers = [self._of_sentinels.primary, self._of_sentinels.replica]
        self.url = self._of_sentinels.url
        self._changing = trio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Replicated:
        await self._stack.enter_async_context(self._of_sentinels)
        return self

    async def _primary(self, _number: int) -> RedisServer:
        told = await self._of_sentinels.sentinels[0].call(
            "SENTINEL", "get-master-addr-by-name", self._of_sentinels.name
        )
        return next(server for server in self.servers if server.port == int(told[1]))

    async def _be_away(self, server: RedisServer, seconds: float) -> None:
        if seconds < QUICK:
            await trio.sleep(seconds)
            return

        async def is_replaced() -> bool:
            return await self._primary(0) is not server

        await until(is_replaced, PATIENCE)

    async def _get_whole(self) -> None:
        async def is_whole() -> bool:
            primary = await self._primary(0)
            for server in self.servers:
                told = await server.info()
                if told["role"] != ("master" if server is primary else "slave"):
                    return False
                if server is not primary and told.get("master_link_status") != "up":
                    return False
            return True

        await until(is_whole, PATIENCE)


class Cluster(Single):
    """Three primaries, and a replica of each."""

    def __init__(self, directory: Path, durability: str) -> None:
        self._cluster = RedisCluster(directory, replicas=True, aof=AOF[durability])
        self.servers = self._cluster.servers
        self.url = self._cluster.url
        self._changing = trio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Cluster:
        await self._stack.enter_async_context(self._cluster)
        return self

    async def move(self, key: str, rng: random.Random) -> None:
        """The slot of a key moves to another primary, with all that is in it, while it is used."""
        async with self._changing:
            slot, found = slot_of(key), await self._primaries()
            ids = {server.port: (await server.call("CLUSTER", "MYID")).decode() for server in found}
            ranges = await found[0].call("CLUSTER", "SLOTS")
            port = next(owner[1] for first, last, owner, *_ in ranges if first <= slot <= last)
            source = next(server for server in found if server.port == port)
            target = rng.choice([server for server in found if server is not source])
            await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
            await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
            while held := await source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
                await source.call("MIGRATE", HERE, target.port, "", 0, 5000, "REPLACE", "KEYS", *held)
            for server in (target, source, *found):
                await server.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
            await self._get_whole()

    async def _primaries(self) -> list[RedisServer]:
        return [server for server in self.servers if (await server.info())["role"] == "master"]

    async def _primary(self, number: int) -> RedisServer:
        found = await self._primaries()
        return found[number % len(found)]

    async def _be_away(self, server: RedisServer, seconds: float) -> None:
        if seconds < QUICK:
            await trio.sleep(seconds)
            return
        others = [one for one in self.servers if one is not server]

        async def is_replaced() -> bool:
            told = [(await one.info())["role"] for one in others]
            return told.count("master") == 3

        await until(is_replaced, PATIENCE)

    async def _get_whole(self) -> None:
        async def is_whole() -> bool:
            told = [await server.info() for server in self.servers]
            roles = [one["role"] for one in told]
            links = [one["master_link_status"] for one in told if one["role"] == "slave"]
            if roles.count("master") != 3 or set(links) != {"up"}:
                return False
            await self._close_slots()
            return await self._cluster.is_whole()

        await until(is_whole, PATIENCE)

    async def _close_slots(self) -> None:
        """A primary that comes back with keys of a slot that has moved meanwhile holds that open, and learns no more of
        whose it is, until somebody comes and says so, as `redis-cli --cluster fix` does."""
        for server in await self._primaries():
            [mine] = [
                line for line in (await server.call("CLUSTER", "NODES")).splitlines() if b"myself" in line
            ]
            for slot in re.findall(rb"\[(\d+)-[<>]-", mine):
                await server.call("CLUSTER", "SETSLOT", slot, "STABLE")


FORMS: Final[dict[str, Any]] = {"server": Single, "sentinel": Replicated, "cluster": Cluster}
