"""A store that the nodes of one process share: the model of one that machines share, for tests and the simulator.

`Place` is what outlives the nodes; each of them has a `SharedMemory` on it. Where something fails, or is late, is
decided by who has the place: see `Place.carry` and `Place.restore`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from ..core.records import Batch, EventRecord, Kept, Part, RevokedRecord
from .interface import Opened
from .memory import MemoryStore
from .shared import Fenced, NodeRecord, Owner, divided

GAPS: Final = 4
"""How many gaps of a log are known, the newest ones."""


@attrs.define
class _Lease:
    about: bytes
    until: float


@attrs.define
class History:
    """Which changes of a log there are, by their versions, so that who has made one notices that it is lost.

    Attributes:
      version: of the last one. With each owner it goes on at what the time is, in microseconds, so that no two owners
        have the same.
      life: in which life of the place the log was last seen to be whole.
      gaps: from the last of each owner to the first of the next.
      void: changes are lost: it is loaded into another epoch.
    """

    version: int
    life: int
    gaps: tuple[tuple[int, int], ...] = ()
    void: bool = False

    def has_lost(self, made: int) -> bool:
        """Whether there is no change of this version."""
        return made > self.version or any(before < made < after for before, after in self.gaps)


@attrs.define
class _Mine:
    """What a node knows of a log that it owns: `known` is the version after its last change, `made` that of the last
    one that it relies on, which another may have made."""

    token: str
    known: int
    made: int


@attrs.define
class _Data:
    """What commits and claims change; all of it goes back where the place is restored."""

    logs: MemoryStore = attrs.field(factory=MemoryStore)
    users: dict[str, None] = attrs.field(factory=dict)
    owners: dict[str, Owner] = attrs.field(factory=dict)
    histories: dict[str, History] = attrs.field(factory=dict)
    with_open_runs: dict[str, set[str]] = attrs.field(factory=dict)
    due: dict[str, float] = attrs.field(factory=dict)
    revoked: dict[str, RevokedRecord] = attrs.field(factory=dict)


class Place:
    """What nodes share.

    Attributes:
      carry: how a message comes from one node to another: the delays, in seconds, after which it arrives; none where
        it is lost. Set it to have the bus fail.
      life: another each time that it is restored, as when a server is restarted, or a replica takes over.
    """

    def __init__(self) -> None:
        self.carry: Callable[[str, str, bytes], Collection[float]] = lambda _sender, _to, _message: (0.0,)
        self.data = _Data()
        self.life = 1
        self.leases: dict[str, _Lease] = {}
        self.beaten_at = -math.inf
        self.values: dict[str, tuple[bytes, float]] = {}
        self.channels: dict[str, trio.MemorySendChannel[tuple[float, bytes]]] = {}
        self._tokens = itertools.count(1)

    def node(self, node: str) -> SharedMemory:
        """The store of one life of a node."""
        return SharedMemory(self, node)

    def snapshot(self) -> Any:
        """All that is kept, for `restore`."""
        return copy.deepcopy(self.data)

    def restore(self, snapshot: Any) -> None:
        """All is as it was then: what was committed since is lost."""
        self.data = copy.deepcopy(snapshot)
        self.life += 1

    def new_token(self, node: str) -> str:
        """A token that never was."""
        return f"{node}/{next(self._tokens)}"

    def lives(self, node: str) -> bool:
        """Whether a node has a lease."""
        lease = self.leases.get(node)
        return lease is not None and lease.until > trio.current_time()


class SharedMemory:
    """One node's `SharedStore` on a place."""

    def __init__(self, place: Place, node: str) -> None:
        self.node = node
        self._place = place
        self._mine: dict[str, _Mine] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `SharedStore`."""
        task_status.started()
        await trio.sleep_forever()

    async def open(self) -> Opened:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        return Opened([], list(self._place.data.revoked.values()))

    async def close(self) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {"kind": "shared memory", "quarantined": 0}

    async def check(self) -> int | None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        return None

    def made(self, user: str) -> int:
        """The version after the last change on which this node relies of a log that it has; 0 where it has not."""
        mine = self._mine.get(user)
        return 0 if mine is None else mine.made

    # -- logs

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        data.revoked.update((record.user, record) for record in batch.revoked)
        parts = divided(batch)
        fenced = self._fenced(parts)
        out = () if fenced is None else fenced.taken | fenced.rolled_back
        for user, part in parts.items():
            if user not in out:
                self._write(data, user, part)
        if fenced is not None:
            raise fenced

    def _write(self, data: _Data, user: str, part: Batch) -> None:
        data.logs.apply([part])
        history, mine = data.histories[user], self._mine[user]
        history.version = mine.known = mine.made = mine.known + 1
        if part.closed:
            for kept in (data.users, data.due, data.with_open_runs):
                kept.pop(user, None)
        for record in part.users:
            data.users[user] = None
            if record.due is None:
                data.due.pop(user, None)
            else:
                data.due[user] = record.due
        for run in part.runs:
            runs = data.with_open_runs.setdefault(user, set())
            (runs.add if run.open else runs.discard)(run.run)
        for _, forgotten in part.forgotten:
            data.with_open_runs.get(user, set()).discard(forgotten)

    def _fenced(self, users: Collection[str], may_be_void: bool = False) -> Fenced | None:
        """Which of these are not this node's; of those of whom changes are lost, the logs are void from now on."""
        taken, rolled_back = [], []
        for user in users:
            mine = self._mine.get(user)
            if mine is None:
                taken.append(user)
            elif self._has_lost(user, mine, may_be_void):
                rolled_back.append(user)
            elif not self._is_owner(user, mine):
                taken.append(user)
        for user in (*taken, *rolled_back):
            self._mine.pop(user, None)
        return Fenced(taken, rolled_back) if taken or rolled_back else None

    def _has_lost(self, user: str, mine: _Mine, may_be_void: bool) -> bool:
        """Whether changes are lost on which this node relies; the log is void then, and nobody's if it was its."""
        data = self._place.data
        history = data.histories.get(user)
        if history is None:
            return True
        if not self._is_owner(user, mine):
            lost = history.has_lost(mine.made)
        else:
            lost = history.version < mine.known or (history.void and not may_be_void)
            if lost:
                del data.owners[user]
        history.void = history.void or lost
        return lost

    def _is_owner(self, user: str, mine: _Mine) -> bool:
        owner = self._place.data.owners.get(user)
        return owner is not None and owner.token == mine.token

    async def load(self, user: str) -> Kept | None:
        """See `SharedStore`. What of it has lost changes begins anew: in another epoch, and without its sessions."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        if (fenced := self._fenced([user], may_be_void=True)) is not None:
            raise fenced
        kept, history = data.logs.kept(user), data.histories[user]
        if kept is not None and history.void:
            data.logs.begin_anew(user, self._place.new_token("epoch"))
            history.version = self._mine[user].known = self._mine[user].made = history.version + 1
            kept = data.logs.kept(user)
        history.void = False
        return kept

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        return await self._place.data.logs.read(user, part)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        return [user for user, at in data.due.items() if at <= now and self._is_nobodys(user)][:most]

    def _is_nobodys(self, user: str) -> bool:
        owner = self._place.data.owners.get(user)
        return owner is None or not self._place.lives(owner.node)

    # -- who owns a log

    async def claim(self, user: str, instead_of: str | None = None) -> Owner:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        owner, history = data.owners.get(user), data.histories.get(user)
        before = 0 if history is None else history.version
        if owner is None or (owner.node != self.node and owner.token == instead_of):
            self._go_on(user, was_owned=owner is not None)
            owner = data.owners[user] = Owner(self.node, self._place.new_token(self.node))
        mine = self._mine.get(user)
        if mine is not None and mine.token != owner.token:  # what it knew is held against what there is
            self._fenced([user])
        if owner.node == self.node and user not in self._mine:
            self._mine[user] = _Mine(owner.token, data.histories[user].version, before)
        return owner

    def _go_on(self, user: str, *, was_owned: bool) -> None:
        """A log has another owner. Of one that has died nobody knows what else it did: where the place had another life
        since, some of that may be lost."""
        histories, life = self._place.data.histories, self._place.life
        now = int(trio.current_time() * 1e6)
        history = histories.get(user)
        if history is None:
            histories[user] = History(now, life)
            return
        after = max(now, history.version + 1)
        history.gaps = ((history.version, after), *history.gaps[: GAPS - 1])
        history.version = after
        history.void = history.void or (was_owned and history.life != life)
        history.life = life

    async def release(self, users: Collection[str]) -> None:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        self._fenced(users, may_be_void=True)  # what is lost is noticed, or nobody will
        for user in users:
            if self._mine.pop(user, None) is not None:
                del data.owners[user]
                if user not in data.users and not data.histories[user].void:
                    del data.histories[user]

    async def lost(self, users: Collection[str]) -> Fenced | None:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        fenced = self._fenced(users)
        for user in users:
            if user in self._mine:
                self._place.data.histories[user].life = self._place.life
        return fenced

    # -- who lives

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        leases, now = self._place.leases, trio.current_time()
        if now - self._place.beaten_at > lease / 2:  # nobody could: whoever had a lease then has one now
            for held in leases.values():
                if held.until > self._place.beaten_at:
                    held.until = now + lease
        self._place.beaten_at = now
        leases[self.node] = _Lease(about, now + lease)
        return [NodeRecord(n, held.until - now, held.about) for n, held in leases.items() if held.until > now]

    async def leave(self) -> None:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        self._place.leases.pop(self.node, None)

    async def orphans(self, most: int) -> list[tuple[str, str]]:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        data = self._place.data
        found = [user for user, runs in data.with_open_runs.items() if runs and self._is_nobodys(user)]
        owners = ((user, data.owners.get(user)) for user in found[:most])
        return [(user, "" if owner is None else owner.token) for user, owner in owners]

    async def users(self, prefix: str, most: int, after: str = "") -> list[str]:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        known = self._place.data.users
        return sorted(user for user in known if user.startswith(prefix) and user > after)[:most]

    async def revoked(self) -> list[RevokedRecord]:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        return list(self._place.data.revoked.values())

    # -- the bus

    async def send(self, node: str, message: bytes) -> bool:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        channel = self._place.channels.get(node)
        if channel is None:
            return False
        for delay in self._place.carry(self.node, node, message):
            with suppress(trio.WouldBlock):  # who does not read loses it
                channel.send_nowait((trio.current_time() + delay, message))
        return True

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """See `SharedStore`."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](10_000)
        self._place.channels[self.node] = send
        try:
            async for at, message in receive:
                if at > trio.current_time():
                    await trio.sleep_until(at)
                take(message)
        finally:
            if self._place.channels.get(self.node) is send:
                del self._place.channels[self.node]

    # -- small values

    async def put(self, name: str, value: bytes, ttl: float) -> None:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        self._place.values[name] = value, trio.current_time() + ttl

    async def take(self, name: str) -> bytes | None:
        """See `SharedStore`."""
        await trio.lowlevel.checkpoint()
        value, until = self._place.values.pop(name, (None, 0.0))
        return value if until > trio.current_time() else None
