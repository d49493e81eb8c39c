"""A `SharedStore` in Redis: what of a user changes at once is changed by one script, which only its owner may call.

A log has a version, which each change raises: so a change that comes late, or comes again, and one to a log of which
Redis has lost changes, are told from the next in line (scripts/guard.lua). What is of no user is changed apart: lists
of whom a node owns, of names, of who has something due. They are written such that a crash between leaves an entry too
many, which is checked when it is used, and never one too few.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import attrs
import trio

from ..core.records import Batch, EventRecord, Kept, Part, RevokedRecord
from ..core.remembered import REMEMBERED_IDS
from ..errors import StoreError
from ..store.interface import Opened
from ..store.reading import Misfit
from ..store.shared import Fenced, NodeRecord, Owner, divided
from . import records
from .changes import Word, changes
from .keys import Keys
from .link import Redis
from .reading import MOST, Found, Reply, confirmed, events_of, read
from .script import Script
from .server import Server
from .url import parse

logger = logging.getLogger(__name__)


def _composed(*parts: str) -> Script:
    """A script of several files; it is called as the last one."""
    return Script(parts[-1], "\n".join(Script.load(part).text for part in parts))


COMMIT: Final = _composed("guard", "commit")
STANDING: Final = _composed("guard", "life", "standing")
LOAD: Final = _composed("guard", "load")
READ: Final = Script.load("read")
CLAIM: Final = _composed("life", "claim")
RELEASE: Final = _composed("life", "release")
LOOK: Final = Script.load("look")
BEAT: Final = Script.load("beat")
LEAVE: Final = Script.load("leave")
LEASES: Final = Script.load("leases")
ENLIST: Final = Script.load("enlist")
DELIST: Final = Script.load("delist")
REVOKE: Final = Script.load("revoke")

_OK, _TAKEN, _ROLLED_BACK, _LATE = 0, 1, 2, 3

LOOK_CLOSELY: Final = 30.0
"""Seconds after which it is noted again which life of a server a log is whole in, and who owns it."""

PAGE: Final = 100
"""Entries that are looked at in one call, where there may be many."""


@attrs.define
class _Owned:
    """What a node knows of a log that it owns.

    Attributes:
      known: its version, after the last change that was confirmed.
      tried: after the last that was asked for.
      whole_at: when it was noted last which life of the server it is whole in.
    """

    token: str
    known: int
    tried: int
    whole_at: float


@attrs.frozen
class _Look:
    """What is to be known of a log without having it.

    Attributes:
      owner: its token; "" for nobody.
      due: when something of it expires; None for never.
      open: a run of it is.
      kept: something is kept of it.
    """

    owner: str
    due: float | None
    open: bool
    kept: bool

    @classmethod
    def of(cls, owner: bytes, due: bytes, is_open: int, kept: int) -> _Look:
        """What scripts/look.lua says."""
        return cls(owner.decode(), float(due) if due else None, bool(is_open), bool(kept))

    @property
    def node(self) -> str:
        """The owner; "" for nobody."""
        return self.owner.rpartition("/")[0]


def _fenced(fate: dict[str, int]) -> Fenced:
    """What to tell of users whose owner a node is not, as the scripts say."""
    rolled_back = {user for user, why in fate.items() if why == _ROLLED_BACK}
    return Fenced(fate.keys() - rolled_back, rolled_back)


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
        self._is_alone = parse(url).kind == "server"
        self._keys = Keys(prefix)
        self._owned: dict[str, _Owned] = {}
        self._tokens = itertools.count(1)
        self._writing = trio.Lock()  # two changes of one log are never under way at once
        self._server = Server()
        self._data: bytes | None = None
        self._revoked: tuple[bytes | None, list[RevokedRecord]] = None, []
        self._quarantined = 0

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
        self._server = await Server.examined(self._redis, self._keys.set)
        found = await self._redis.command("HGET", self._keys.set, "quarantined", key=self._keys.set)
        self._quarantined = int(found or 0)
        return Opened([], await self.revoked())

    async def close(self) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {
            "kind": "redis",
            "quarantined": self._quarantined,
            "owned": len(self._owned),
            **self._server.stats(),
        }

    async def check(self) -> int | None:
        """See `Store`. Nothing is looked at: there may be the logs of millions."""
        await trio.lowlevel.checkpoint()
        return None

    # -- logs

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        async with self._writing:
            if batch.revoked:
                await self._revoke(batch.revoked)
            parts = divided(batch)
            fenced = await self._change({user: changes(user, part) for user, part in parts.items()})
        if fenced is not None:
            raise fenced

    async def _change(self, all_changes: dict[str, list[Word]], may_be_void: bool = False) -> Fenced | None:
        """Change logs, each by itself; `_writing` is held. Returns of whom nothing was."""
        calls, called = [], []
        fate: dict[str, int] = {}
        for user, words in all_changes.items():
            owned = self._owned.get(user)
            if owned is None:
                fate[user] = _TAKEN
                continue
            before, owned.tried = owned.tried, owned.tried + 1
            allowed = (owned.token, owned.known, before, owned.tried, int(may_be_void))
            called.append((user, owned, owned.tried))
            args = (*allowed, REMEMBERED_IDS, int("events" in words), *words)
            calls.append((self._keys.of(user), args))
        failed: StoreError | None = None
        replies = await self._redis.scripts(COMMIT, calls, replicated=True)
        for (user, owned, version), reply in zip(called, replies, strict=True):
            if isinstance(reply, StoreError):
                failed = reply
            elif reply == _OK:
                owned.known = version
            else:
                fate[user] = reply
                self._forget(user, owned)
        if failed is not None:
            raise failed
        return _fenced(fate) if fate else None

    def _forget(self, user: str, owned: _Owned) -> None:
        """A log is not this node's any more, if it has not been claimed anew."""
        if self._owned.get(user) is owned:
            del self._owned[user]

    async def load(self, user: str) -> Kept | None:
        """See `Store`.

        Raises:
          Fenced: the user is another node's.
        """
        found = read(user, await self._load(user))
        if not (found.misfits or found.log or found.void):
            return found.kept
        await self._put_aside(user, found)
        if found.log is None:
            return found.kept
        kept = read(user, await self._load(user)).kept
        if kept is not None:
            kept.damaged = found.damaged
        return kept

    async def _load(self, user: str) -> Reply:
        while True:
            owned = self._owned.get(user)
            if owned is None:
                await trio.lowlevel.checkpoint()
                raise Fenced([user])
            args = (owned.token, owned.known, owned.tried, MOST, REMEMBERED_IDS)
            standing, *reply = await self._redis.script(LOAD, self._keys.of(user), args)
            if standing == _OK:
                return Reply(*reply)
            if standing != _LATE:  # a commit has come before it
                self._forget(user, owned)
                raise _fenced({user: standing})

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        misfits: list[Misfit] = []
        if part.id is None:
            order = "mortal" if part.mortal else "lesser" if part.lesser else ""
            events = await self._read(user, part, order, misfits)
        else:
            events = await self._find(user, part, misfits)
        if misfits:
            await self._put_aside(user, Found(void=False, misfits=misfits))
        return events

    async def _read(self, user: str, part: Part, order: str, misfits: list[Misfit]) -> list[EventRecord]:
        size = "inf" if part.size == math.inf else part.size
        args = (part.first, part.last, part.most, size, order)
        found, marks = await self._redis.script(READ, self._keys.of(user), args)
        return confirmed(events_of(user, found, misfits, in_order=not order), marks, 0)

    async def _find(self, user: str, part: Part, misfits: list[Misfit]) -> list[EventRecord]:
        """Those of one id: the log is looked through in pages, so that Redis is not held up."""
        events: list[EventRecord] = []
        first, size = part.first, 0
        while len(events) < part.most and size < part.size:
            page = await self._read(user, Part(first=first, last=part.last, most=PAGE), "", misfits)
            found = [event for event in page if event.id == part.id][: part.most - len(events)]
            events += found
            size += sum(len(event.payload) for event in found)
            if len(page) < PAGE:
                break
            first = page[-1].first + 1
        return events

    async def _put_aside(self, user: str, found: Found) -> None:
        """Write what is to be changed by what was read."""
        async with self._writing:
            fenced = await self._change({user: found.changes(time.time())}, may_be_void=True)
        if fenced is not None:
            raise fenced
        if not found.misfits:
            return
        count = len(found.misfits)
        self._quarantined += count
        first = found.misfits[0]
        logger.error(
            "damaged values were set aside: the key that ends in aside has them",
            extra={"user": user, "values": count, "place": first.table, "why": first.why},
        )
        await self._redis.command("HINCRBY", self._keys.set, "quarantined", count, key=self._keys.set)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        living, dead = await self._leases()
        key = self._keys.due
        index = await self._redis.command(
            "ZRANGE", key, "-inf", now, "BYSCORE", "LIMIT", 0, 4 * most, key=key
        )
        users = [name.decode() for name in index]
        for node in dead:
            users += await self._some_owned(node, most)
        looks = await self._look(dict.fromkeys(users))
        return [
            user
            for user, look in looks.items()
            if look.due is not None and look.due <= now and look.node not in living
        ][:most]

    # -- who owns a log

    async def claim(self, user: str, instead_of: str | None = None) -> Owner:
        """See `SharedStore`."""
        keys, node = self._keys, self.node
        await self._enlist([user])
        args = (f"{node}/{next(self._tokens)}", node, instead_of or "", int(self._loses_nothing))
        found, version, is_due = await self._redis.script(CLAIM, (keys.log(user),), args)
        token = found.decode()
        owner = Owner(token.rpartition("/")[0], token)
        if owner.node != node:
            await self._redis.command("SREM", keys.owned(node), user, key=keys.owned(node))
            return owner
        if is_due:
            await self._redis.command("ZREM", keys.due, user, key=keys.due)
        owned = self._owned.get(user)
        if owned is None or owned.token != token:
            self._owned[user] = _Owned(token, int(version), int(version), trio.current_time())
        return owner

    async def _enlist(self, users: list[str]) -> None:
        keys, node = self._keys, self.node
        await self._redis.script(ENLIST, (keys.leases, keys.users, keys.owned(node)), (node, *users))

    async def release(self, users: Collection[str]) -> None:
        """See `SharedStore`."""
        keys = self._keys
        mine = {user: owned for user in users if (owned := self._owned.get(user)) is not None}
        looks = await self._look(mine)
        due = [word for user, look in looks.items() if look.due is not None for word in (look.due, user)]
        if due:
            await self._redis.command("ZADD", keys.due, *due, key=keys.due)
        # Of whom nothing is kept, the name goes first: whoever claims the user next puts it back.
        empty = [user for user, look in looks.items() if not look.kept]
        if empty:
            await self._redis.command("ZREM", keys.users, *empty, key=keys.users)
        await self._call(RELEASE, [((keys.log(user),), (owned.token, 0)) for user, owned in mine.items()])
        for user in mine:
            self._owned.pop(user, None)
        if mine:
            owned_by = keys.owned(self.node)
            await self._redis.command("SREM", owned_by, *mine, key=owned_by)

    async def lost(self, users: Collection[str]) -> Fenced | None:
        """See `SharedStore`."""
        fate = {user: _TAKEN for user in users if user not in self._owned}
        asked, calls, now = [], [], trio.current_time()
        closely = []
        for user in users:
            owned = self._owned.get(user)
            if owned is None:
                continue
            is_time = owned.whole_at + LOOK_CLOSELY <= now
            if is_time:
                owned.whole_at = now
                closely.append(user)
            asked.append((user, owned))
            calls.append(((self._keys.log(user),), (owned.token, owned.known, owned.tried, int(is_time))))
        for (user, owned), standing in zip(asked, await self._call(STANDING, calls), strict=True):
            # Late is what a commit has come before; and who was released meanwhile may be owned anew.
            if standing not in (_OK, _LATE) and self._owned.get(user) is owned:
                fate[user] = standing
                self._forget(user, owned)
        again = [user for user in closely if user in self._owned]
        if again:  # what was given up once, when Redis could not be reached, may have undone it late
            await self._enlist(again)
        return _fenced(fate) if fate else None

    async def _call(
        self, script: Script, calls: Sequence[tuple[Sequence[Word], Sequence[Word]]]
    ) -> list[Any]:
        """Call a script many times.

        Raises:
          StoreError: one of the calls has failed; the others may have been done.
        """
        replies = await self._redis.scripts(script, calls)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    @property
    def _loses_nothing(self) -> bool:
        """Whether what was committed is there for certain after a restart, and where a replica takes over."""
        return self._is_replicated or (self._is_alone and self._server.persistence == "aof always")

    async def _look(self, users: Iterable[str]) -> dict[str, _Look]:
        """What is to be known of logs, whoever owns them."""
        names = list(users)
        replies = await self._call(LOOK, [(self._keys.to_look(user), ()) for user in names])
        return {user: _Look.of(*reply) for user, reply in zip(names, replies, strict=True)}

    # -- who lives

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """See `SharedStore`. A time in which no node at all could beat does not count: Redis was away."""
        keys = self._keys
        args = (self.node, about, round(lease * 1000), secrets.token_hex(8))
        data, *found = await self._redis.script(BEAT, (keys.leases, keys.about, keys.set), args)
        if self._data not in (None, data):
            logger.error("Redis has lost all that it held, or is another")
        self._data = data
        return [
            NodeRecord(found[n].decode(), int(found[n + 1]) / 1000, found[n + 2])
            for n in range(0, len(found), 3)
        ]

    async def leave(self) -> None:
        """See `SharedStore`."""
        keys = self._keys
        await self._redis.script(LEAVE, (keys.leases, keys.about, keys.owned(self.node)), (self.node,))

    async def orphans(self, most: int) -> list[tuple[str, str]]:
        """See `SharedStore`."""
        _, dead = await self._leases()
        found: list[tuple[str, str]] = []
        for node in random.sample(dead, len(dead)):
            if len(found) >= most:
                break
            users = await self._some_owned(node, most)
            looks = await self._look(users)
            alive = {user for user, look in looks.items() if look.node == node and look.open}
            found += [(user, looks[user].owner) for user in alive]
            await self._bury(node, {user: look for user, look in looks.items() if user not in alive})
        return found[:most]

    async def _bury(self, node: str, looks: dict[str, _Look]) -> None:
        """Have a dead node own no more who was another's already, or of whom there is nothing to do now."""
        keys = self._keys
        doubtful = int(not self._loses_nothing)
        dead = [
            ((keys.log(user),), (look.owner, doubtful)) for user, look in looks.items() if look.node == node
        ]
        await self._call(RELEASE, dead)
        due = [
            word
            for user, look in looks.items()
            for word in (user, "" if look.node not in ("", node) or look.due is None else look.due)
        ]
        await self._redis.script(DELIST, (keys.leases, keys.owned(node), keys.due), (node, *due))

    async def _leases(self) -> tuple[set[str], list[str]]:
        """The nodes that live, and those that don't, of which something may be left."""
        living, dead = await self._redis.script(LEASES, (self._keys.leases,))
        return {node.decode() for node in living}, [node.decode() for node in dead]

    async def _some_owned(self, node: str, most: int) -> list[str]:
        """Some of whom a node owns, or has owned; each time others."""
        key = self._keys.owned(node)
        return [name.decode() for name in await self._redis.command("SRANDMEMBER", key, most, key=key)]

    async def users(self, prefix: str, most: int, after: str = "") -> list[str]:
        """See `SharedStore`."""
        key, start = self._keys.users, prefix.encode()
        end = b"(" + start + b"\xff" if prefix else b"+"  # no UTF-8 has that byte
        low = b"[" + start if after.encode() < start else b"(" + after.encode()
        users: list[str] = []
        while len(users) < most:
            page = await self._redis.command("ZRANGE", key, low, end, "BYLEX", "LIMIT", 0, PAGE, key=key)
            looks = await self._look(name.decode() for name in page)
            users += [user for user, look in looks.items() if look.kept]
            if len(page) < PAGE:
                break
            low = b"(" + page[-1]
        return users[:most]

    async def revoked(self) -> list[RevokedRecord]:
        """See `SharedStore`."""
        keys = self._keys
        when = await self._redis.command("HGET", keys.set, "revoked", key=keys.set)
        if when is None or when != self._revoked[0]:
            found = await self._redis.command("HGETALL", keys.revoked, key=keys.revoked)
            now = time.time()
            known = [
                records.revoked_of(name.decode(), value, now)
                for name, value in zip(found[::2], found[1::2], strict=True)
            ]
            self._revoked = when, known
        return list(self._revoked[1])

    async def _revoke(self, revoked: list[RevokedRecord]) -> None:
        keys = self._keys
        args = [word for r in revoked for word in (r.user, records.revoked_value(r), r.until)]
        await self._redis.script(
            REVOKE, (keys.revoked, keys.revoked_until, keys.set), (revoked[0].since, *args)
        )

    # -- what nodes tell each other

    async def send(self, node: str, message: bytes) -> bool:
        """See `SharedStore`."""
        return await self._redis.publish(self._keys.to_node(node), message) != 0

    async def send_to_all(self, message: bytes) -> None:
        """See `SharedStore`."""
        await self._redis.publish(self._keys.to_all, message)

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """See `SharedStore`."""
        await self._redis.subscribe([self._keys.to_all, self._keys.to_node(self.node)], take)

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
