"""What a node asks of a store that several nodes share. A contract test holds all such stores to it.

Each user's log is one node's at a time: its *owner*, who has claimed it. What a claim gives is a *token*, another each
time; each commit carries it, and one that is not the present one any more is refused: the owner before is fenced off,
whatever it still believes. So two nodes may err about who owns a log, and nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import attrs
import trio

from ..core.records import Batch, RevokedRecord
from ..errors import StoreError
from .interface import Store


@attrs.frozen
class Owner:
    """Who owns a user's log.

    Attributes:
      node: the id of one life of a node.
      token: fences off who owned it before; unique for ever, and compared for equality only.
    """

    node: str
    token: str


@attrs.frozen
class NodeRecord:
    """A node that lives.

    Attributes:
      left: seconds for which its lease holds yet.
      about: what it says of itself, for the others; at most 64 KiB.
    """

    node: str
    left: float
    about: bytes


class Fenced(StoreError):
    """Of these users nothing was written, and nothing will be: they are not this node's. All else was written.

    Attributes:
      taken: another node has claimed them.
      rolled_back: the store has lost commits of them: it was restarted without its data, or an older copy took over.
    """

    def __init__(self, taken: Collection[str], rolled_back: Collection[str] = ()) -> None:
        super().__init__(
            f"{len(taken)} users are another node's, of {len(rolled_back)} the store has lost commits"
        )
        self.taken = frozenset(taken)
        self.rolled_back = frozenset(rolled_back)

    @property
    def users(self) -> frozenset[str]:
        """All of them."""
        return self.taken | self.rolled_back


class SharedStore(Store, Protocol):
    """A `Store` of several nodes; this object is one node's.

    `Store.commit` is all or nothing for each user here, not over all of them, and raises `Fenced`. `Store.open` tells
    no users: there may be millions. `Store.load` is for users who were claimed, and raises `Fenced` where that does not
    hold any more; a user of whom commits were lost comes back with another epoch. `Store.due` tells only users whom
    nobody owns, or whose owner has no lease.

    Every coroutine method is a checkpoint and raises `StoreError` where the store fails. Cancelled, or failed, it may
    have been done or not; to do it again is right.

    Attributes:
      node: the id of this life of the node, 1 to 64 characters.
    """

    node: str

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what it does by itself, such as holding connections, until cancelled. It is started before `open`."""

    # -- who owns a log

    async def claim(self, user: str, instead_of: str | None = None) -> Owner:
        """Become the owner of a log that nobody owns, or whose owner's token is `instead_of`.

        Returns: who owns it now; this node, where that was so before, too, with the same token.
        """

    async def release(self, users: Collection[str]) -> None:
        """Own these no longer; what was theirs is committed. Of those who are another's, nothing changes."""

    async def lost(self, users: Collection[str]) -> Fenced | None:
        """Which of these, that were claimed here, are not this node's any more; None where all are."""

    # -- who lives

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """This node lives, for so many seconds at least, by the store's clock.

        Returns: all that live, this one among them.
        """

    async def leave(self) -> None:
        """This node lives no longer; what it owns may be claimed (`orphans`)."""

    async def orphans(self, most: int) -> list[tuple[str, str]]:
        """Users who have open runs, and whom nobody owns who has a lease: user, and the token to claim it instead of,
        or "". At most so many, and not always the same. Others have time until they are asked for, or `due`. What was
        a node's, and has lost commits, may be told to that node only, as long as it lives."""

    async def users(self, prefix: str, most: int, after: str = "") -> list[str]:
        """Of whom something is kept, in the order of their names as UTF-8: those that begin with `prefix` and come
        behind `after`, at most so many."""

    async def revoked(self) -> list[RevokedRecord]:
        """Who is revoked. Cheap where nothing has changed since the last call."""

    # -- what nodes tell each other: at most once, in order where it arrives, and only a hint

    async def send(self, node: str, message: bytes) -> bool:
        """Have a message brought to a node; False where nobody listens there, as far as can be told."""

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """Hand over what is sent to this node, until cancelled. A connection that breaks is made again: what was sent
        meanwhile is lost. Raises nothing."""

    # -- small values, for whoever knows their name

    async def put(self, name: str, value: bytes, ttl: float) -> None:
        """Keep a value for so many seconds."""

    async def take(self, name: str) -> bytes | None:
        """A value, which nobody else is given any more; None where there is none."""


def divided(batch: Batch) -> dict[str, Batch]:
    """What a batch has of each user, in the order in which users come up in it; not who is revoked."""
    parts: dict[str, Batch] = {}

    def part(user: str) -> Batch:
        found = parts.get(user)
        if found is None:
            found = parts[user] = Batch()
        return found

    for user in batch.closed:
        part(user).closed.append(user)
    for removal in batch.removed:
        part(removal.user).removed.append(removal)
    for event in batch.events:
        part(event.user).events.append(event)
    for user, first in batch.confirmed:
        part(user).confirmed.append((user, first))
    for record in batch.users:
        part(record.user).users.append(record)
    for session in batch.sessions:
        part(session.user).sessions.append(session)
    for user, ended in batch.ended:
        part(user).ended.append((user, ended))
    for user, key in batch.keys:
        part(user).keys.append((user, key))
    for run in batch.runs:
        part(run.user).runs.append(run)
    for user, forgotten in batch.forgotten:
        part(user).forgotten.append((user, forgotten))
    return parts


def without(batch: Batch, users: Collection[str]) -> Batch:
    """A batch, but for what it has of these users; who is revoked stays in it."""
    rest = Batch(revoked=batch.revoked)
    for user, part in divided(batch).items():
        if user not in users:
            for field in attrs.fields(Batch):
                getattr(rest, field.name).extend(getattr(part, field.name))
    return rest
