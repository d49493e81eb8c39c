"""What Redis holds, read as a node would, and held against what publishers were promised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

import trio_ws

from .copies import missing
from .journal import Journal


@attrs.define
class Kept:
    """Looks into the Redis of a run.

    Attributes:
      url: of it.
      journal: where findings go, as wrong.
      looks: how often it was looked into.
    """

    url: str
    journal: Journal
    looks: int = 0

    async def look(self, promised: dict[str, list[tuple[str, int]]]) -> None:
        """Find all that was answered before, by user: the newest events, each with its seq."""
        async with self._store() as store:
            for user, events in promised.items():
                for finding in missing(user, await store.load(user), events):
                    self.journal.write("wrong", what=f"Redis: {finding}")
        self.looks += 1

    async def write_down(self, promised: dict[str, list[tuple[str, int]]]) -> None:
        """Once all nodes have ended: look, and write down what there is, for the checker."""
        await self.look(promised)
        async with self._store() as store:
            for user in promised:
                log = await store.load(user)
                if log is not None:
                    events = [[event.seq, event.id] for event in log.events]
                    unconfirmed = [
                        [event.seq, event.id]
                        for event in log.events
                        if event.priority == 3 and not event.confirmed and event.seq > log.user.confirmed
                    ]
                    told = {"epoch": log.user.epoch, "head": log.user.head, "unconfirmed": unconfirmed}
                    self.journal.write("kept", user=user, events=events, **told)
            if aside := store.stats()["quarantined"]:
                self.journal.write("wrong", what=f"Redis: {aside} records made no sense")

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[trio_ws.RedisStore]:
        store = trio_ws.RedisStore(self.url)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.open()
            yield store
            await store.close()
            nursery.cancel_scope.cancel()
