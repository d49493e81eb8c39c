"""The logs that one node owns: each is changed as a whole by one script, which only its owner may call.

A log has a version, which each change raises: so a change that comes late, or comes again, and one to a log of which
Redis has lost changes, are told from the next in line (scripts/guard.lua).
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import attrs
import trio

from ..core.records import Batch, EventRecord, Kept, Part
from ..core.remembered import REMEMBERED_IDS
from ..errors import StoreError
from ..store.reading import Misfit
from ..store.shared import Fenced, Owner, divided
from .changes import Word, changes
from .keys import Keys
from .link import Redis
from .reading import MOST, Found, Reply, confirmed, events_of, read
from .refusals import Refused
from .script import Script

logger = logging.getLogger(__name__)

COMMIT: Final = Script.load("guard", "commit")
STANDING: Final = Script.load("guard", "life", "standing")
LOAD: Final = Script.load("guard", "load")
READ: Final = Script.load("read")
CLAIM: Final = Script.load("guard", "life", "claim")
RELEASE: Final = Script.load("guard", "life", "release")
LOOK: Final = Script.load("look")

_DAMAGE: Final = "WRONGTYPE| attempt to | expected, got | not a float| not a valid float"
"""What Redis and Lua say of values that are not what they should be."""

_OK, _TAKEN, _ROLLED_BACK, _LATE = 0, 1, 2, 3

_ANY_VERSION: Final = 2**53
"""Above all that there are."""

LOOK_CLOSELY: Final = 30.0
"""Seconds after which it is noted again which life of a server a log is whole in, and who owns it."""

MEMORY: Final = 10_000
"""Logs that a node has let go last, of which it remembers what they were."""

PAGE: Final = 100
"""Events that are looked at in one call, where there may be many."""


@attrs.define
class Owned:
    """What a node knows of a log that it owns.

    Attributes:
      known: its version, after the last change that was confirmed.
      tried: after the last that was asked for.
      made: after the last change of all that this node relies on, which another may have made.
      whole_at: when it was noted last which life of the server it is whole in.
    """

    token: str
    known: int
    tried: int
    made: int
    whole_at: float


@attrs.frozen
class Look:
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
    def of(cls, owner: bytes, due: bytes, is_open: int, kept: int) -> Look:
        """What scripts/look.lua says."""
        return cls(_token(owner), _time(due), bool(is_open), bool(kept))

    @property
    def node(self) -> str:
        """The owner; "" for nobody."""
        return self.owner.rpartition("/")[0]

    def is_due(self, now: float) -> bool:
        """Whether something of it has expired."""
        return self.due is not None and self.due <= now


NONSENSE: Final = Look("", None, open=False, kept=True)
"""What is to be known of a log that nothing can be made of."""


def _fenced(fate: dict[str, int]) -> Fenced:
    """What to tell of users whose owner a node is not, as the scripts say."""
    rolled_back = {user for user, why in fate.items() if why == _ROLLED_BACK}
    return Fenced(fate.keys() - rolled_back, rolled_back)


def whole(value: bytes) -> int:
    """A whole number; 0 where it makes no sense, which is no version of any log."""
    return int(value) if value.isdigit() and len(value) < 17 else 0


def _token(owner: bytes) -> str:
    """Who owns a log; what makes no sense is nobody who lives."""
    return owner.decode("ascii", "replace")


def _time(due: bytes) -> float | None:
    """When something of a log expires; None for never, and where that makes no sense."""
    try:
        return float(due)
    except ValueError:
        return None


def _is_damage(error: StoreError) -> bool:
    """Whether a script could make no sense of what it found in the keys of one user."""
    return isinstance(error, Refused) and re.search(_DAMAGE, str(error)) is not None


def _unless_damaged(reply: Any) -> Any:
    """A reply; None where that says that something of one user makes no sense, which is to be in nobody else's way.

    Raises:
      StoreError: that is the reply, for any other reason.
    """
    if not isinstance(reply, StoreError):
        return reply
    if not _is_damage(reply):
        raise reply
    return None


class Logs:
    """The logs of `node`.

    Attributes:
      owned: those that it has, by user.
      left: logs that were this node's until it was refused, which nobody may have now (`RedisStore.orphans`).
      quarantined: how many values were set aside, from before this process, too.
    """

    def __init__(self, redis: Redis, keys: Keys, node: str) -> None:
        self.owned: dict[str, Owned] = {}
        self.left: dict[str, None] = {}
        self.quarantined = 0
        self._redis = redis
        self._keys = keys
        self._node = node
        self._tokens = itertools.count(1)
        self._let_go: dict[
            str, tuple[int, bool]
        ] = {}  # the version that each had; whether its loss would be known
        self._writing = trio.Lock()  # two changes of one log are never under way at once

    # -- what is in them

    async def commit(self, batch: Batch) -> None:
        """As `SharedStore.commit`, but for who is revoked."""
        async with self._writing:
            parts = divided(batch)
            fenced = await self._change({user: changes(user, part) for user, part in parts.items()})
        if fenced is not None:
            raise fenced

    async def _change(self, all_changes: dict[str, list[Word]], may_be_void: bool = False) -> Fenced | None:
        """Change logs, each by itself; `_writing` is held. Returns of whom nothing was."""
        calls, called = [], []
        fate: dict[str, int] = {}
        for user, words in all_changes.items():
            owned = self.owned.get(user)
            if owned is None:
                fate[user] = _TAKEN
                continue
            before, owned.tried = owned.tried, owned.tried + 1
            allowed = (owned.token, owned.known, before, owned.made)
            called.append((user, owned, owned.tried))
            how = (owned.tried, int(may_be_void), REMEMBERED_IDS, int("events" in words))
            args = (*allowed, *how, *words)
            calls.append((self._keys.of(user), args))
        failed: StoreError | None = None
        replies = await self._redis.scripts(COMMIT, calls, replicated=True)
        for (user, owned, version), reply in zip(called, replies, strict=True):
            if isinstance(reply, StoreError) and not _is_damage(reply):
                failed = reply
            elif reply == _OK:
                owned.known = owned.made = version
            else:
                if isinstance(reply, StoreError):  # others are not to wait for it
                    logger.error("a log can't be changed", extra={"user": user, "error": str(reply)})
                fate[user] = reply if reply == _ROLLED_BACK else _TAKEN
                self._forget(user, owned, reply)
        if failed is not None:
            raise failed
        return _fenced(fate) if fate else None

    def _forget(self, user: str, owned: Owned, standing: Any) -> None:
        """A log is not this node's any more, if it has not been claimed anew.

        Args:
          standing: how a script said that this node stood. Where commits are lost, Redis knows of that.
        """
        if self.owned.get(user) is owned:
            del self.owned[user]
            if standing != _OK:
                self.left[user] = None
            self._let_go.pop(user, None)
            self._let_go[user] = owned.made, standing == _ROLLED_BACK
            if len(self._let_go) > MEMORY:
                del self._let_go[next(iter(self._let_go))]

    async def load(self, user: str) -> Kept | None:
        """As `Store.load`.

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
            owned = self.owned.get(user)
            if owned is None:
                await trio.lowlevel.checkpoint()
                raise Fenced([user])
            tried = owned.tried
            args = (owned.token, owned.known, tried, owned.made, MOST, REMEMBERED_IDS)
            standing, *reply = await self._redis.script(LOAD, self._keys.of(user), args)
            if standing == _OK:
                return Reply(*reply)
            if standing != _LATE:
                self._forget(user, owned, standing)
                raise _fenced({user: standing})
            if owned.tried == tried and self.owned.get(user) is owned:  # no commit has come before it
                raise StoreError("the log is refused: its version makes no sense")

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """As `Store.read`."""
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
        self.quarantined += count
        first = found.misfits[0]
        logger.error(
            "damaged values were set aside: the key that ends in aside has them",
            extra={"user": user, "values": count, "place": first.table, "why": first.why},
        )
        await self._redis.command("HINCRBY", self._keys.set, "quarantined", count, key=self._keys.set)

    # -- whose they are

    async def claim(self, user: str, instead_of: str | None, *, is_sure: bool) -> tuple[Owner, bool, bool]:
        """As `SharedStore.claim`.

        Args:
          is_sure: nothing is lost in a restart of Redis, and where a replica takes over.

        Returns: also, whether something of the log expires, and whether it has a record.
        """
        made, is_told = self._let_go.get(user, (0, False))
        token = f"{self._node}/{next(self._tokens)}"
        args = (token, self._node, instead_of or "", int(is_sure), made, int(is_told))
        found, version, before, *known = await self._redis.script(CLAIM, (self._keys.log(user),), args)
        token = _token(found)
        owner = Owner(token.rpartition("/")[0], token)
        if user in self._let_go:
            self._let_go[user] = made, True
        owned = self.owned.get(user)
        if owned is not None and owned.token != token:
            await self._take_leave(user, owned)
        if owner.node == self._node and user not in self.owned:
            self._let_go.pop(user, None)
            self.left.pop(user, None)
            self.owned[user] = Owned(
                token, whole(version), whole(version), whole(before), trio.current_time()
            )
        is_due, has_record = map(bool, known)
        return owner, is_due, has_record

    async def _take_leave(self, user: str, owned: Owned) -> None:
        """A log is not what this node had: that is looked at before it is forgotten what it knew."""
        args = (owned.token, owned.known, owned.tried, owned.made, 0)
        await self._redis.script(STANDING, (self._keys.log(user),), args)
        self._forget(user, owned, _TAKEN)

    async def release(self, mine: dict[str, Owned]) -> None:
        """Have these, which were this node's, be nobody's."""
        calls = [
            ((self._keys.log(user),), (o.token, o.known, o.tried, o.made, 0)) for user, o in mine.items()
        ]
        for (user, owned), stood in zip(mine.items(), await self._call(RELEASE, calls), strict=True):
            self._forget(user, owned, stood)

    async def release_of_dead(self, tokens: dict[str, str], *, is_sure: bool) -> None:
        """Have these be nobody's whose owner has died, by their tokens; `is_sure` is as for `claim`."""
        await self._call(
            RELEASE,
            [
                ((self._keys.log(user),), (token, 0, _ANY_VERSION, 0, int(not is_sure)))
                for user, token in tokens.items()
            ],
        )

    async def lost(self, users: Collection[str]) -> tuple[Fenced | None, list[str]]:
        """As `SharedStore.lost`.

        Returns: also, those of the others that were looked at closely, which is done every `LOOK_CLOSELY` seconds.
        """
        fate = {user: _TAKEN for user in users if user not in self.owned}
        mine = {user: owned for user in users if (owned := self.owned.get(user)) is not None}
        now = trio.current_time()
        closely = {user for user, owned in mine.items() if owned.whole_at + LOOK_CLOSELY <= now}
        for user in closely:
            mine[user].whole_at = now
        mine = {user: mine[user] for user in await self._doubtful(mine) | closely}
        calls = [
            ((self._keys.log(user),), (o.token, o.known, o.tried, o.made, int(user in closely)))
            for user, o in mine.items()
        ]
        for (user, owned), standing in zip(mine.items(), await self._call(STANDING, calls), strict=True):
            # Late is what a commit has come before; and who was released meanwhile may be owned anew.
            if standing not in (_OK, _LATE) and self.owned.get(user) is owned:
                fate[user] = standing or _TAKEN
                self._forget(user, owned, standing)
        fenced = _fenced(fate) if fate else None
        return fenced, [user for user in closely if user in self.owned]

    async def _doubtful(self, mine: dict[str, Owned]) -> set[str]:
        """Those who do not look as they should; that is asked for each in turn, so it is asked in the cheapest way."""
        keys = [self._keys.log(user) for user in mine]
        replies = await self._redis.commands(
            [("HMGET", key, "owner", "version", "void") for key in keys], keys
        )
        found = set()
        for (user, owned), reply in zip(mine.items(), replies, strict=True):
            token, version, void = _unless_damaged(reply) or (b"", b"", b"")
            if void or token != owned.token.encode() or not owned.known <= whole(version) <= owned.tried:
                found.add(user)
        return found

    async def look(self, users: Iterable[str]) -> dict[str, Look]:
        """What is to be known of logs, whoever owns them."""
        names = list(users)
        replies = await self._call(LOOK, [(self._keys.to_look(user), ()) for user in names])
        found = zip(names, replies, strict=True)
        return {user: Look.of(*reply) if reply else NONSENSE for user, reply in found}

    async def _call(
        self, script: Script, calls: Sequence[tuple[Sequence[Word], Sequence[Word]]]
    ) -> list[Any]:
        """Call a script many times; of a log that it can make no sense of the reply is None.

        Raises:
          StoreError: one of the calls has failed; the others may have been done.
        """
        replies = await self._redis.scripts(script, calls)
        return [_unless_damaged(reply) for reply in replies]
