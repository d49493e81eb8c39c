"""What is kept in Redis that is of no user: who lives, whom a node owns, who there is, who is due, who is revoked.

It is changed apart from the logs, such that a crash between leaves an entry too many, which is checked when it is used,
and never one too few.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from ..core.records import RevokedRecord
from ..store.shared import NodeRecord
from . import records
from .keys import Keys
from .link import Redis
from .script import Script

logger = logging.getLogger(__name__)

BEAT: Final = Script.load("beat")
LEAVE: Final = Script.load("leave")
LEASES: Final = Script.load("leases")
ENLIST: Final = Script.load("enlist")
DELIST: Final = Script.load("delist")
REVOKE: Final = Script.load("revoke")


class Lists:
    """The lists of all nodes, as `node` writes and reads them."""

    def __init__(self, redis: Redis, keys: Keys, node: str) -> None:
        self._redis = redis
        self._keys = keys
        self._node = node
        self._data: bytes | None = None
        self._revoked: tuple[bytes | None, list[RevokedRecord]] = None, []

    # -- who lives

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """As `SharedStore.beat`. A time in which no node at all could beat does not count: Redis was away."""
        keys = self._keys
        args = (self._node, about, round(lease * 1000), secrets.token_hex(8))
        data, *found = await self._redis.script(BEAT, (keys.leases, keys.about, keys.set), args)
        if self._data not in (None, data):
            logger.error("Redis has lost all that it held, or is another")
        self._data = data
        return [
            NodeRecord(node, int(found[n + 1]) / 1000, found[n + 2])
            for n in range(0, len(found), 3)
            for node in _names(found[n : n + 1])
        ]

    async def leave(self) -> None:
        """As `SharedStore.leave`."""
        keys = self._keys
        await self._redis.script(LEAVE, (keys.leases, keys.about, keys.owned(self._node)), (self._node,))

    async def leases(self) -> tuple[set[str], list[str]]:
        """The nodes that live, and those that don't, of which something may be left."""
        living, dead = await self._redis.script(LEASES, (self._keys.leases,))
        return set(_names(living)), _names(dead)

    # -- whom a node owns

    async def enlist(self, users: Collection[str]) -> None:
        """These are about to be this node's, or are: they are found by name, and by the node should that die."""
        keys, node = self._keys, self._node
        await self._redis.script(ENLIST, (keys.leases, keys.users, keys.owned(node)), (node, *users))

    async def strike(self, users: Collection[str]) -> None:
        """These are not this node's."""
        if users:
            key = self._keys.owned(self._node)
            await self._redis.command("SREM", key, *users, key=key)

    async def some_owned(self, node: str, most: int) -> list[str]:
        """Some of whom a node owns, or has owned; each time others."""
        key = self._keys.owned(node)
        return _names(await self._redis.command("SRANDMEMBER", key, most, key=key))

    async def bury(self, node: str, due: dict[str, float | None]) -> None:
        """A dead node does not own these any more; and when something of them is due that nobody has."""
        keys = self._keys
        words = [word for user, at in due.items() for word in (user, "" if at is None else at)]
        await self._redis.script(DELIST, (keys.leases, keys.owned(node), keys.due), (node, *words))

    # -- who has something due

    async def put_due(self, due: dict[str, float]) -> None:
        """When something of these is due, whom nobody is going to own."""
        if due:
            words = [word for user, at in due.items() for word in (at, user)]
            await self._redis.command("ZADD", self._keys.due, *words, key=self._keys.due)

    async def strike_due(self, user: str) -> None:
        """Somebody owns this one."""
        await self._redis.command("ZREM", self._keys.due, user, key=self._keys.due)

    async def due(self, now: float, most: int) -> list[str]:
        """Of whom something is due; at most so many, somewhere among all: what is not so must not be in the way."""
        key = self._keys.due
        count = await self._redis.command("ZCOUNT", key, "-inf", now, key=key)
        first = random.randrange(max(1, count - most + 1))
        found = await self._redis.command(
            "ZRANGE", key, "-inf", now, "BYSCORE", "LIMIT", first, most, key=key
        )
        return _names(found)

    # -- who there is

    async def names(self, prefix: str, after: bytes, most: int) -> tuple[list[str], bytes | None]:
        """Users of whom something may be kept, as `SharedStore.users` has them; and behind what there may be more, or
        None."""
        key, start = self._keys.users, prefix.encode()
        end = b"(" + start + b"\xff" if prefix else b"+"  # no UTF-8 has that byte
        low = b"[" + start if after < start else b"(" + after
        found = await self._redis.command("ZRANGE", key, low, end, "BYLEX", "LIMIT", 0, most, key=key)
        return _names(found), found[-1] if len(found) == most else None

    async def strike_names(self, users: Collection[str]) -> None:
        """Nothing is kept of these."""
        if users:
            await self._redis.command("ZREM", self._keys.users, *users, key=self._keys.users)

    # -- who is revoked

    async def revoked(self) -> list[RevokedRecord]:
        """As `SharedStore.revoked`."""
        keys = self._keys
        when = await self._redis.command("HGET", keys.set, "revoked", key=keys.set)
        if when is None or when != self._revoked[0]:
            found = await self._redis.command("HGETALL", keys.revoked, key=keys.revoked)
            now = time.time()
            known = [
                records.revoked_of(name, value, now)
                for found_name, value in zip(found[::2], found[1::2], strict=True)
                for name in _names([found_name])
            ]
            self._revoked = when, known
        return list(self._revoked[1])

    async def revoke(self, revoked: list[RevokedRecord]) -> None:
        """As `Batch.revoked`; at least one."""
        keys = self._keys
        args = [word for r in revoked for word in (r.user, records.revoked_value(r), r.until)]
        await self._redis.script(
            REVOKE, (keys.revoked, keys.revoked_until, keys.set), (revoked[0].since, *args)
        )


def _names(found: list[bytes]) -> list[str]:
    """Those of these that can be names. What is no UTF-8 is nobody's, and in nobody's way."""
    names = []
    for name in found:
        with suppress(UnicodeDecodeError):
            names.append(name.decode())
    return names
