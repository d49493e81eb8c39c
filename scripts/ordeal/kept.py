"""What Redis holds, held against what publishers were promised: looked at from beside, whoever owns it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trio_ws.core.remembered import REMEMBERED_IDS
from trio_ws.errors import StoreError
from trio_ws.redis.keys import Keys
from trio_ws.redis.link import Redis
from trio_ws.redis.reading import MOST, Found, Reply, read
from trio_ws.redis.script import Script

from .copies import Promise, missing
from .journal import Journal

PEEK: Final = Script(
    "peek",
    "\n".join(
        (
            Script.load("guard").text,
            "standing = function() return OK end",
            Script.load("load").text,
        )
    ),
)
"""What a node loads a log by; whoever owns it is told."""
KEYS: Final = Keys("trio-ws:")
NOTICED: Final = 10.0
"""Seconds in which a loss has been noticed: nodes look each 2 s, where the machine has nothing else to do."""


@attrs.define
class Kept:
    """Looks into the Redis of a run.

    Attributes:
      url: of it.
      journal: where findings go, as wrong.
      may_renew: logs may begin anew: what was answered is not looked for where the epoch is over, or will be when a
        node has looked at it, which is given time.
      looks: how often it was looked into.
    """

    url: str
    journal: Journal
    may_renew: bool = False
    looks: int = 0

    async def look(self, promised: dict[str, list[Promise]]) -> None:
        """Find all that was answered before, by user: the newest events."""
        async with self._reached() as redis:
            until = trio.current_time() + (NOTICED if self.may_renew else 0)
            while True:
                try:
                    found = await self._missing(redis, promised)
                except StoreError as error:  # servers that have just failed over may do so once more
                    found = [f"it can't be looked into: {error}"]
                if not found or trio.current_time() >= until:
                    break
                await trio.sleep(0.2)
        self._wrong(found)
        self.looks += 1

    async def _missing(self, redis: Redis, promised: dict[str, list[Promise]]) -> list[str]:
        wrong = []
        for user, events in promised.items():
            found = await self._peek(redis, user)
            if not (self.may_renew and (found.void or found.kept is None)):
                wrong += missing(user, found.kept, events)
        return wrong

    async def write_down(self, users: list[str]) -> None:
        """Once all nodes have ended: write down what there is, for the checker."""
        async with self._reached() as redis:
            for user in users:
                log = (await self._peek(redis, user)).kept
                if log is None:
                    self._wrong([f"nothing is known of {user}"])
                    continue
                unconfirmed = [
                    [event.seq, event.id]
                    for event in log.events
                    if event.priority == 3 and not event.confirmed and event.seq > log.user.confirmed
                ]
                events = [[event.seq, event.id] for event in log.events]
                told = {"epoch": log.user.epoch, "head": log.user.head, "unconfirmed": unconfirmed}
                self.journal.write("kept", user=user, events=events, **told)

    async def _peek(self, redis: Redis, user: str) -> Found:
        _, *reply = await redis.script(PEEK, KEYS.of(user), ("", 0, 0, 0, MOST, REMEMBERED_IDS))
        found = read(user, Reply(*reply))
        if found.void and not self.may_renew:
            self._wrong([f"changes of {user} were lost"])
        self._wrong([f"{misfit.table} of {user}: {misfit.why}" for misfit in found.misfits])
        return found

    def _wrong(self, findings: list[str]) -> None:
        for finding in findings:
            self.journal.write("wrong", what=f"Redis: {finding}")

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[Redis]:
        redis = Redis(self.url)
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            yield redis
            nursery.cancel_scope.cancel()
