"""What a node looks at again and again: are its logs its own, and needed? Whose log has nobody? Who is revoked?"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from ..core.limits import spread
from ..errors import StoreError, StoreUnavailable
from ..hub.cleanup import sweep
from ..hub.durability import Durability
from .leaving import Leaving

if TYPE_CHECKING:
    from .hub import ClusteredHub

logger = logging.getLogger(__name__)

SWEEP: Final = 1.0
"""Seconds between looks at a part of the tokens, at users of dead nodes, and at those of whom something expires."""

PART: Final = 0.5
"""What part of the tokens is looked at in one sweep."""

ADOPTED: Final = 32
"""How many users of dead nodes, or of nobody, are seen to in one sweep."""

IDLE: Final = 60.0
"""Seconds without an event, and without a connection, after which a log is nobody's again."""

LOOKED_AT: Final = 2000
"""Of how many users it is seen in one sweep whether they are idle."""

REVOKED: Final = 0.5
"""Seconds between looks at who is revoked."""


class Sweeping:
    """Looks, as long as the node lives."""

    def __init__(self, hub: ClusteredHub, durability: Durability, leaving: Leaving) -> None:
        self._hub = hub
        self._engine = hub.engine
        self._boxes = hub.engine.buffer.mailboxes
        self._durability = durability
        self._leaving = leaving
        self._round: list[str] = []  # whom it is yet to be seen of whether they are idle

    async def run(self) -> NoReturn:
        """Sweep, each `SWEEP` seconds, until cancelled. What goes wrong in one is logged."""
        sweeps = 0
        while True:
            sweeps += 1
            await trio.sleep(spread(SWEEP, sweeps))
            if self._engine.suspended:
                continue
            try:
                await self._sweep()
            except StoreError as error:
                logger.debug("a sweep was cut short: %s", error)
            except Exception:
                logger.exception("a sweep failed")

    async def _sweep(self) -> None:
        hub = self._hub
        fenced = await hub.ownership.look_at_some(PART)
        if fenced is not None:
            hub.fenced(fenced)
        if hub.draining:
            return
        await self._release_idle()
        for user in hub.ownership.doubtful(ADOPTED):
            with suppress(StoreError):
                await hub.ownership.find(user)  # what nobody needs is given back later
        for user, _ in await hub.store.orphans(ADOPTED):
            await self._adopt(user)
        # Not at once: what expires soon after goes with it, or a log would be loaded again for each event.
        due_at = self._engine.wall_clock() - self._engine.config.cleanup_interval / 2
        for user in await hub.store.due(due_at, ADOPTED):
            if user not in hub.ownership.owned and await self._adopt(user):
                if (box := self._boxes.get(user)) is not None:
                    sweep(self._engine, box, self._engine.clock())
                    self._engine.react()
                await self._leaving.hand_over(user)

    async def _adopt(self, user: str) -> bool:
        """Have a log here that nobody has; returns whether it is. One that can't be had is in no other's way."""
        try:
            return await self._hub.place(user) is None
        except StoreUnavailable as error:
            logger.debug("a log could not be had: %s", error)
            return False

    async def _release_idle(self) -> None:
        """Give back logs that nobody needs here: of users who have gone, and who sleep, or have not had an event for a
        while. Each time the next of them are looked at, so that the loop is not held."""
        if not self._round:
            self._round = list(self._hub.ownership.owned)
        some, self._round = self._round[-LOOKED_AT:], self._round[:-LOOKED_AT]
        now, writing = self._engine.clock(), self._durability.writing
        await self._leaving.give_back(
            [user for user in some if self._is_unused(user) and user not in writing]
        )
        idle = [user for user in some if self._is_idle(user, now)]
        for user in idle[:ADOPTED]:
            await self._leaving.hand_over(user)

    def _is_unused(self, user: str) -> bool:
        """Whether nothing of a user is here, or about to be written."""
        if user in self._boxes or user in self._engine.buffer.runs.users:
            return False
        return not (self._hub.loader.is_under_way(user) or self._durability.ledger.is_closing(user))

    def _is_idle(self, user: str, now: float) -> bool:
        box = self._boxes.get(user)
        return box is not None and box.last_event_at + IDLE <= now and self._leaving.may_go(user)

    async def hear_of_revoked(self) -> NoReturn:
        """End the sessions of those who were revoked at another node, each `REVOKED` seconds, until cancelled."""
        while True:
            await trio.sleep(REVOKED)
            try:
                records = await self._hub.store.revoked()
            except StoreError:
                continue
            for record in self._engine.revocations.learn(records, self._engine.wall_clock()):
                box = self._boxes.get(record.user)
                for session in [] if box is None else list(box.sessions.values()):
                    self._hub.reception.dismiss(session)
