"""Whose logs a node has, and who has the others: each log has one owner, by a token that the store checks.

Ownership changes a user at a time (`_changing`), and in one place: it is claimed by a task that nobody cancels halfway,
and released once nothing of it is here. That a node is wrong about it does no harm: the store refuses what it writes.
So who has which log may be remembered here (`_others`) until it turns out to be otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import attrs
import trio

from ..errors import HubClosed, StoreError
from ..store import Fenced, Owner, SharedStore
from .membership import Membership

REMEMBERED: Final = 100_000
"""Of how many users it is remembered which other node has the log."""

LOOKED_AT: Final = 500
"""How many tokens are looked at in one call of the store."""

MOST_LOOKED_AT: Final = 2000
"""How many are, at most, each time that some are: who owns very many must not keep the store busy with it. What is
written is checked in any case."""


@attrs.define(eq=False)
class _Change:
    """A log is being claimed, or released."""

    done: trio.Event = attrs.field(factory=trio.Event)
    owner: Owner | None = None
    error: StoreError | None = None


class Ownership:
    """The logs of one node.

    Args:
      store: who decides.
      membership: who lives.
      nursery: where claims run.
      before_claim: is awaited with each user before it is claimed.
      on_claimed: is called with each user whose log is this node's from now on.

    Attributes:
      owned: whose logs this node has.
      claims, taken_over, released: how many there were, since the start.
      closed: this node's hub has ended: it claims nothing more.
    """

    def __init__(
        self,
        store: SharedStore,
        membership: Membership,
        nursery: trio.Nursery,
        *,
        before_claim: Callable[[str], Awaitable[None]],
        on_claimed: Callable[[str], None],
    ) -> None:
        self.owned: dict[str, Owner] = {}
        self.claims = self.taken_over = self.released = 0
        self.closed = False
        self._store = store
        self._membership = membership
        self._nursery = nursery
        self._before_claim = before_claim
        self._on_claimed = on_claimed
        self._changing: dict[str, _Change] = {}
        self._others: dict[str, Owner] = {}
        self._doubtful: dict[str, None] = {}  # a claim or a release of them failed
        self._gone: set[str] = set()  # tokens of owners that do not answer, though they have a lease
        self._at = 0  # up to where tokens were looked at, in this round

    # -- who has it

    async def find(self, user: str) -> Owner:
        """Who owns a log: this node, where nobody else does who lives; another, as far as is known. A checkpoint,
        unless that is remembered. Cancelled, this node may come to own it.

        Raises:
          StoreError: the store can't be asked.
          HubClosed: this node's hub has ended.
        """
        while not self.closed:
            if (owner := self.owned.get(user)) is not None:
                return owner
            change = self._changing.get(user)
            if change is None:
                if (other := self._others.get(user)) is not None and self._answers(other):
                    return other
                change = self._changing[user] = _Change()
                self._nursery.start_soon(self._claim, user, change)
            await change.done.wait()
            if change.error is not None:
                raise StoreError(str(change.error)) from change.error
            if change.owner is not None and change.owner.node != self._store.node:
                return change.owner
        raise HubClosed("the hub has ended")

    def is_changing(self, user: str) -> bool:
        """Whether it is just being claimed, or released."""
        return user in self._changing

    async def unchanging(self, user: str) -> None:
        """Wait until it is neither claimed nor released just now. A checkpoint where it is."""
        while (change := self._changing.get(user)) is not None:
            await change.done.wait()

    def other(self, user: str) -> str | None:
        """Which other node has the log of `user`, as far as that is remembered."""
        other = self._others.get(user)
        return other.node if other is not None and self._answers(other) else None

    def forget(self, user: str, node: str, *, gone: bool = False) -> None:
        """A node does not have the log of `user`, as it says; or it is `gone`: it does not answer."""
        other = self._others.get(user)
        if other is not None and other.node == node:
            del self._others[user]
            if gone:
                self._gone.add(other.token)

    def node_is_gone(self, node: str) -> None:
        """A node lives no longer: what it had is to be claimed by who needs it."""
        for user in [user for user, owner in self._others.items() if owner.node == node]:
            del self._others[user]
        self._gone = {token for token in self._gone if not token.startswith(f"{node}/")}

    def _answers(self, owner: Owner) -> bool:
        return self._membership.lives(owner.node) and owner.token not in self._gone

    async def _claim(self, user: str, change: _Change) -> None:
        try:
            await self._before_claim(user)
            owner = await self._store.claim(user)
            if owner.node != self._store.node and not self._answers(owner):
                await self._membership.beat()  # it may have come since the last
                if not self._answers(owner):
                    dead, owner = owner, await self._store.claim(user, instead_of=owner.token)
                    self._gone.discard(dead.token)
                    self.taken_over += owner.node == self._store.node
            self.claims += 1
            change.owner = owner
            self._note(user, owner)
        except StoreError as error:
            change.error = error
            self._doubt([user])
        finally:
            if change.owner is None and change.error is None:
                change.error = StoreError("this node has ended")
            del self._changing[user]
            change.done.set()

    def _note(self, user: str, owner: Owner) -> None:
        if owner.node == self._store.node:
            self._others.pop(user, None)
            self.owned[user] = owner
            self._on_claimed(user)
            return
        self._others[user] = owner
        if len(self._others) > REMEMBERED:
            del self._others[next(iter(self._others))]

    # -- what came of a call that failed

    def doubtful(self, most: int) -> list[str]:
        """Some users whose log the store may know as this node's, which does not have it: as long as nobody asks for
        one, nothing would become of it. Each is told once, unless looking for it (`find`) fails, too."""
        some = list(itertools.islice(self._doubtful, most))
        for user in some:
            del self._doubtful[user]
        return [user for user in some if user not in self.owned]

    def _doubt(self, users: Iterable[str]) -> None:
        for user in users:
            if len(self._doubtful) < REMEMBERED:
                self._doubtful[user] = None

    # -- letting go

    def lost(self, user: str) -> None:
        """The log of `user` is another node's by now, or none that this one knows."""
        self.owned.pop(user, None)

    async def release(self, users: Iterable[str]) -> None:
        """Own these no longer: nothing of them is here any more, and all is committed. A checkpoint. Where the store
        fails, they stay this node's there, and are looked for again (`doubtful`).

        Raises:
          StoreError: the store failed.
        """
        change, mine = _Change(), []
        for user in users:
            if user in self.owned and user not in self._changing:
                mine.append(user)
                del self.owned[user]
                self._changing[user] = change
        try:
            await self._store.release(mine)
            self.released += len(mine)
        except StoreError:
            self._doubt(mine)
            raise
        finally:
            for user in mine:
                del self._changing[user]
            change.done.set()

    # -- looking whether it is still so

    async def look_at_some(self, part: float) -> Fenced | None:
        """Look at a part of the tokens, the next one each time. A checkpoint.

        Args:
          part: of all, above 0, at most 1; at most `MOST_LOOKED_AT`.

        Returns: who is not this node's any more, and is to be dropped; None where all are.

        Raises:
          StoreError: the store can't be asked.
        """
        users = list(self.owned)
        count = min(math.ceil(len(users) * part), MOST_LOOKED_AT)
        if self._at >= len(users):
            self._at = 0
        some = users[self._at : self._at + count]
        self._at += count
        return await self._look_at(some)

    async def look_at_all(self) -> Fenced | None:
        """As `look_at_some`, of all."""
        return await self._look_at(list(self.owned))

    async def _look_at(self, users: list[str]) -> Fenced | None:
        owners = {user: self.owned[user] for user in users}
        taken: set[str] = set()
        rolled_back: set[str] = set()
        for at in range(0, len(users), LOOKED_AT):
            fenced = await self._store.lost(users[at : at + LOOKED_AT])
            if fenced is not None:
                taken |= fenced.taken
                rolled_back |= fenced.rolled_back
        await trio.lowlevel.checkpoint()
        since = {
            user for user, owner in owners.items() if self.owned.get(user) is not owner
        }  # released, meanwhile
        if not taken | rolled_back <= since:
            return Fenced(taken - since, rolled_back - since)
        return None
