"""Logs that leave this node: to a node that asks, or to nobody. One stays for as long as somebody here needs it."""

from __future__ import annotations

import logging
import math
from typing import Final

from ..errors import StoreError, StoreUnavailable
from ..hub.durability import Durability
from ..hub.engine import Engine
from ..hub.inbox import has_letters
from ..hub.moving import Moving
from .ownership import Ownership

logger = logging.getLogger(__name__)

HELD_FOR: Final = 0.5
"""Seconds for which a log stays for a connection that was about to be attached."""

COMMITS: Final = 3
"""How many commits are waited for until a log has nothing to write any more; one that goes on changing stays."""

AT_ONCE: Final = 500
"""How many logs are given back in one call of the store."""


class Leaving:
    """Gives logs back.

    Attributes:
      handed_over: how many, one by one, had their last things written before, since the start.
    """

    def __init__(self, engine: Engine, durability: Durability, ownership: Ownership, moving: Moving) -> None:
        self.handed_over = 0
        self._engine = engine
        self._durability = durability
        self._ownership = ownership
        self._moving = moving
        self._expected: dict[str, float] = {}  # when a connection was about to be attached

    def expect(self, user: str) -> None:
        """A connection is about to be attached: the log stays for a moment."""
        self._expected[user] = self._engine.clock()

    def forget(self, user: str) -> None:
        """The log of `user` is not here any more."""
        self._expected.pop(user, None)

    def may_go(self, user: str) -> bool:
        """Whether nobody here needs the log of `user`: neither a connection, nor a run, nor who waits for an event."""
        box = self._engine.buffer.mailboxes.get(user)
        if box is None or self._engine.suspended:
            return False
        if self._expected.get(user, -math.inf) + HELD_FOR > self._engine.clock():
            return False
        return (
            not (box.runs is not None and box.runs.open)
            and not self._engine.room.line(user)
            and all(session.link is None and not has_letters(session) for session in box.sessions.values())
            and not any(entry.waiters for entry in box.entries.values())
            and (box.rest is None or not box.rest.is_awaited)
        )

    async def hand_over(self, user: str) -> bool:
        """Have all of a log written, and give it back; see `ClusteredHub.hand_over`."""
        boxes = self._engine.buffer.mailboxes
        box = boxes.get(user)
        if box is None or not self.may_go(user):
            return False
        assert box.track is not None
        commits = 0
        while not (box.track.idle and box.track.is_tight):
            if commits == COMMITS:
                return False
            commits += 1
            box.track.tighten()
            try:
                await self._durability.wait_for_next()
            except StoreUnavailable:
                return False
            if boxes.get(user) is not box or not self.may_go(user):
                return False
        self.handed_over += 1
        await self.give_back([user])
        return True

    async def give_back(self, users: list[str]) -> None:
        """Give logs back of which nothing is to be written any more."""
        for user in users:
            self._moving.drop(user)
            self.forget(user)
        try:
            await self._ownership.release(users)
        except StoreError as error:
            logger.warning("logs could not be given back: %s", error)

    async def give_all_back(self) -> None:
        """Give back what a hub that was drained has, but for the logs of open runs."""
        runs = self._engine.buffer.runs.users
        left = [user for user in self._ownership.owned if not (user in runs and runs[user].open)]
        if self._durability.idle:
            for at in range(0, len(left), AT_ONCE):
                await self.give_back(left[at : at + AT_ONCE])
