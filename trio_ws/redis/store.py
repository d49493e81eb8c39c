"""A `SharedStore` in Redis: the logs that a node owns (`logs.py`), and what is of no user (`lists.py`)."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import trio

from ..core.records import Batch, EventRecord, Kept, Part, RevokedRecord
from ..store.interface import Opened
from ..store.shared import Fenced, NodeRecord, Owner
from .keys import Keys
from .link import Redis
from .lists import Lists
from .logs import Logs, Look, whole
from .refusals import Unreachable
from .server import Server
from .url import parse

AT_ONCE: Final = 500
"""Logs that are released in one go."""

PAGE: Final = 100
"""Users who are looked at in one go."""


class RedisStore:
    """One node's `SharedStore` in the Redis at `url`.

    Args:
      url: docs/redis.md has its forms.
      prefix: of all keys and channels, without braces. Nodes that share their users have the same.
      wait_replicas: how many replicas are to have each commit before it counts; else it is tried again.

    Raises:
      InvalidConfig: the URL or the prefix is none.
    """

    def __init__(self, url: str, *, prefix: str = "trio-ws:", wait_replicas: int = 0) -> None:
        self.node = secrets.token_hex(8)
        self._redis = Redis(url, replicas=wait_replicas)
        self._is_replicated = wait_replicas > 0
        self._kind = parse(url).kind
        self._keys = Keys(prefix)
        self._logs = Logs(self._redis, self._keys, self.node)
        self._lists = Lists(self._redis, self._keys, self.node)
        self._server = Server()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `SharedStore`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._redis.run)
            task_status.started()

    async def open(self) -> Opened:
        """See `Store`.

        Raises:
          StoreError: Redis can't be reached, is too old, or may evict what is kept in it; or a newer version of this
            package has written there.
        """
        self._server = await Server.examined(self._redis, self._keys.set, is_cluster=self._kind == "cluster")
        with suppress(Unreachable):  # nobody listens; but who may not say anything would hear nothing either
            await self.send(self.node, b"")
        found = await self._redis.command("HGET", self._keys.set, "quarantined", key=self._keys.set)
        self._logs.quarantined = whole(found or b"0")
        return Opened([], await self.revoked())

    async def close(self) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {
            "kind": "redis",
            "quarantined": self._logs.quarantined,
            "owned": len(self._logs.owned),
            **self._server.stats(),
        }

    async def check(self) -> int | None:
        """See `Store`. Nothing is looked at: there may be the logs of millions."""
        await trio.lowlevel.checkpoint()
        return None

    # -- logs

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        if batch.revoked:
            await self._lists.revoke(batch.revoked)
        await self._logs.commit(batch)

    async def load(self, user: str) -> Kept | None:
        """See `Store`.

        Raises:
          Fenced: the user is another node's.
        """
        return await self._logs.load(user)

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        return await self._logs.read(user, part)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        living, dead = await self._lists.leases()
        users = await self._lists.due(now, 4 * most)
        for node in dead:
            users += await self._lists.some_owned(node, most)
        looks = await self._logs.look(dict.fromkeys(users))
        return [user for user, look in looks.items() if look.is_due(now) and look.node not in living][:most]

    # -- who owns a log

    async def claim(self, user: str, instead_of: str | None = None) -> Owner:
        """See `SharedStore`."""
        await self._lists.enlist([user])
        owner, is_due, has_record = await self._logs.claim(user, instead_of, is_sure=self._loses_nothing)
        if owner.node != self.node:
            await self._lists.strike([user])
            return owner
        if is_due:
            await self._lists.strike_due(user)
        if not has_record:  # who had it before may have struck the name meanwhile
            await self._lists.enlist([user])
        return owner

    async def release(self, users: Collection[str]) -> None:
        """See `SharedStore`."""
        names = list(users)
        for at in range(0, len(names), AT_ONCE):
            await self._release(names[at : at + AT_ONCE])
        await trio.lowlevel.checkpoint()

    async def _release(self, users: list[str]) -> None:
        mine = {user: owned for user in users if (owned := self._logs.owned.get(user)) is not None}
        if not mine:
            return
        looks = await self._logs.look(mine)
        await self._lists.put_due({user: look.due for user, look in looks.items() if look.due is not None})
        # Of whom nothing is kept, the name goes first: whoever claims the user next puts it back.
        await self._lists.strike_names([user for user, look in looks.items() if not look.kept])
        await self._logs.release(mine)
        await self._lists.strike([user for user in mine if user not in self._logs.left])

    async def lost(self, users: Collection[str]) -> Fenced | None:
        """See `SharedStore`."""
        fenced, looked_at = await self._logs.lost(users)
        if looked_at:  # what was given up once, when Redis could not be reached, may have struck them late
            await self._lists.enlist(looked_at)
        return fenced

    @property
    def _loses_nothing(self) -> bool:
        """Whether what was committed is there for certain after a restart, and where a replica takes over.

        That replicas have it is not enough: a primary that is back before it is missed makes them what it is itself.
        """
        return self._server.persistence == "aof always" and (self._is_replicated or self._kind == "server")

    # -- who lives

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """See `SharedStore`. A time in which no node at all could beat does not count: Redis was away."""
        return await self._lists.beat(about, lease)

    async def leave(self) -> None:
        """See `SharedStore`."""
        await self._lists.leave()

    async def orphans(self, most: int) -> list[tuple[str, str]]:
        """See `SharedStore`."""
        found = await self._left()
        _, dead = await self._lists.leases()
        for node in random.sample(dead, len(dead)):
            if len(found) >= most:
                break
            looks = await self._logs.look(await self._lists.some_owned(node, most))
            orphans = {user: look for user, look in looks.items() if look.open and look.node in ("", node)}
            found += [(user, look.owner) for user, look in orphans.items()]
            await self._bury(node, {user: look for user, look in looks.items() if user not in orphans})
        return found[:most]

    async def _left(self) -> list[tuple[str, str]]:
        """Which of the logs that this node was refused are nobody's now, and have open runs. They are named among those
        that it owns, so that they are found as well should it die."""
        left = self._logs.left
        looks = await self._logs.look(itertools.islice(left, AT_ONCE))
        nobodys = {
            user: look for user, look in looks.items() if look.node in ("", self.node) and user in left
        }
        await self._lists.put_due({user: look.due for user, look in nobodys.items() if look.due is not None})
        for user in looks.keys() & left.keys():
            del left[user]
            if user in nobodys and nobodys[user].open:
                left[user] = None  # behind all others: it is looked at until somebody has it
        return [(user, look.owner) for user, look in nobodys.items() if look.open]

    async def _bury(self, node: str, looks: dict[str, Look]) -> None:
        """Have a dead node own no more who was another's already, or of whom there is nothing to do now."""
        tokens = {user: look.owner for user, look in looks.items() if look.node == node}
        await self._logs.release_of_dead(tokens, is_sure=self._loses_nothing)
        await self._lists.bury(
            node, {user: look.due if look.node in ("", node) else None for user, look in looks.items()}
        )

    async def users(self, prefix: str, most: int, after: str = "") -> list[str]:
        """See `SharedStore`."""
        users: list[str] = []
        behind: bytes | None = after.encode()
        while behind is not None and len(users) < most:
            page, behind = await self._lists.names(prefix, behind, PAGE)
            users += [user for user, look in (await self._logs.look(page)).items() if look.kept]
        return users[:most]

    async def revoked(self) -> list[RevokedRecord]:
        """See `SharedStore`."""
        return await self._lists.revoked()

    # -- what nodes tell each other

    async def send(self, node: str, message: bytes) -> bool:
        """See `SharedStore`."""
        return await self._redis.publish(self._keys.to_node(node), message) != 0

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """See `SharedStore`."""
        await self._redis.subscribe([self._keys.to_node(self.node)], take)

    # -- small values

    async def put(self, name: str, value: bytes, ttl: float) -> None:
        """See `SharedStore`."""
        key = self._keys.value(name)
        await self._redis.command("SET", key, value, "PX", max(1, round(ttl * 1000)), key=key)

    async def take(self, name: str) -> bytes | None:
        """See `SharedStore`."""
        key = self._keys.value(name)
        found: bytes | None = await self._redis.command("GETDEL", key, key=key)
        return found
