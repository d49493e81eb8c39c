"""That a node lives: it says so each half second, hears who else does, and stops in time where nobody hears it.

A lease is by the store's clock, and begins when the store takes a beat, not before the beat was begun here. So a node
whose last beat was begun longer ago than a lease, less a margin, is *suspended*: others may take over what it has. When
a beat gets through again, what it owned is looked at, and it goes on with what nobody took.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import msgspec
import trio

from ..errors import StoreError
from ..store import NodeRecord, SharedStore

logger = logging.getLogger(__name__)

BEAT: Final = 0.5
"""Seconds from beat to beat."""

LEASE: Final = 2.0
"""Seconds for which a beat says that its node lives."""

MARGIN: Final = 0.3
"""Seconds before its lease ends at which a node stops."""

HEARSAY: Final = 0.8
"""Seconds after which what was heard with a beat is old: the next one is overdue."""

PAUSE: Final = 0.1
"""Seconds until a beat that failed is tried again."""


class Membership:
    """One node's lease, and who else has one.

    Args:
      store: what the nodes share.
      about: what there is to tell of this node to the others, with each beat: what has a JSON form.
      on_suspended: is called when the lease may be over.
      on_back: is awaited when a beat has got through after that; the node is suspended until it returns.
      on_gone: is called with each node that lives no longer; its `left` is above 0 where it has given its lease up.

    Attributes:
      suspended: others may believe that this node is dead.
      beats, suspensions: how many there were.
    """

    def __init__(
        self,
        store: SharedStore,
        about: Callable[[], dict[str, object]],
        *,
        on_suspended: Callable[[], None],
        on_back: Callable[[], Awaitable[None]],
        on_gone: Callable[[NodeRecord], None],
    ) -> None:
        self.suspended = False
        self.beats = self.suspensions = 0
        self._store = store
        self._about = about
        self._on_suspended = on_suspended
        self._on_back = on_back
        self._on_gone = on_gone
        self._nodes: dict[str, NodeRecord] = {}
        self._begun_at = self._heard_at = trio.current_time()
        self._left = False
        self._speaking = trio.Lock()

    def lives(self, node: str) -> bool:
        """Whether a node had a lease at the last beat, which has not ended since. Who hears nothing itself knows
        nothing of others: while beats fail, those live on that did at the last."""
        record = self._nodes.get(node)
        if record is None:
            return False
        since = trio.current_time() - self._heard_at
        return since < record.left or since > HEARSAY

    def nodes(self) -> list[NodeRecord]:
        """Who lived at the last beat, this node among them, and what is left by now of their leases."""
        since = trio.current_time() - self._heard_at
        return [attrs.evolve(record, left=max(0.0, record.left - since)) for record in self._nodes.values()]

    async def beat(self) -> None:
        """Say that this node lives, and hear who else does. A checkpoint.

        Raises:
          StoreError: that could not be said.
        """
        async with self._speaking:
            if self._left:
                return
            begun_at = trio.current_time()
            found = await self._store.beat(msgspec.json.encode(self._about()), LEASE)
        self.beats += 1
        now = trio.current_time()
        since, self._heard_at = now - self._heard_at, now
        self._begun_at = max(self._begun_at, begun_at)
        before, self._nodes = self._nodes, {record.node: record for record in found}
        for node, record in before.items():
            if node not in self._nodes:
                self._on_gone(attrs.evolve(record, left=record.left - since))

    async def run(self) -> None:
        """Beat until cancelled, or until this node has left."""
        while not self._left:
            begun_at = trio.current_time()
            beaten = False
            ends_at = begun_at + LEASE if self.suspended else self._begun_at + LEASE - MARGIN
            try:
                with trio.CancelScope(deadline=ends_at):
                    await self.beat()
                    beaten = True
            except StoreError as error:
                logger.debug("a beat failed: %s", error)
            if not beaten:
                await self._go_without()
            elif self.suspended:
                await self._come_back()
            else:
                await trio.sleep_until(begun_at + BEAT)

    async def _go_without(self) -> None:
        """A beat did not get through."""
        if not self.suspended and trio.current_time() >= self._begun_at + LEASE - MARGIN:
            self.suspended = True
            self.suspensions += 1
            logger.error("this node is suspended: the store that it shares with others can't be reached")
            self._on_suspended()
        with trio.CancelScope(
            deadline=self._begun_at + LEASE - MARGIN if not self.suspended else float("inf")
        ):
            await trio.sleep(PAUSE)

    async def _come_back(self) -> None:
        """A beat has got through: see what is still this node's, and go on with that."""
        seen = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat_on)
            try:
                await self._on_back()
                seen = True
            except StoreError as error:
                logger.warning("what this node owns can't be looked at yet: %s", error)
                await trio.sleep(PAUSE)
            nursery.cancel_scope.cancel()
        if seen and trio.current_time() < self._begun_at + LEASE - MARGIN:
            self.suspended = False
            logger.warning("this node goes on: the store is back")

    async def _beat_on(self) -> None:
        """Beat while this node looks at what it owns, which may take a while."""
        while True:
            await trio.sleep(BEAT)
            try:
                await self.beat()
            except StoreError as error:
                logger.debug("a beat failed: %s", error)

    async def leave(self) -> None:
        """This node lives no longer. A checkpoint; it raises nothing: its lease ends by itself."""
        self._left = True
        try:
            async with self._speaking:  # a beat that is under way would be heard after it
                await self._store.leave()
        except StoreError as error:
            logger.warning("the store could not be told that this node leaves: %s", error)
