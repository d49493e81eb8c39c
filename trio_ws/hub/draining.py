"""Going away in order: tell each client, flush within a deadline, close, commit; or at once."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final, TypeAlias

import trio

from ..core import closing
from ..errors import HubClosed
from .attachment import Attachment
from .elsewhere import RemoteAttachment
from .engine import Engine

Condition: TypeAlias = Callable[[Attachment | RemoteAttachment], bool]

ACK_GRACE: Final = 1.0
"""Seconds in which a drain waits for acks too; after that, that all was written is enough."""

CLOSE_GRACE: Final = 2.0
"""Seconds that connections have to close, after they were told to."""

COMMIT_GRACE: Final = 2.5
"""Seconds that the last commits have."""


class Draining:
    """The end of a hub.

    Args:
      last_words: accepts what is to be accepted last, before the last commit.
    """

    def __init__(self, engine: Engine, last_words: Callable[[], None]) -> None:
        self.engine = engine
        self._last_words = last_words
        self._lock = trio.Lock()
        self._gone = False

    async def drain(self, timeout: float | None = None) -> None:
        """See `Hub.drain`."""
        self.engine.draining = True
        self.engine.stopping.set()
        self.engine.room.end(lambda: HubClosed("the hub is draining"))
        async with self._lock:
            if not self._gone:
                await self._drain(self.engine.config.drain_timeout if timeout is None else timeout)
                self._last_words()
                if self.engine.durability is not None:
                    with trio.move_on_after(COMMIT_GRACE):
                        await self.engine.durability.finish()
                self._gone = True

    async def _drain(self, limit: float) -> None:
        engine = self.engine
        self._tell_when_to_come_back()
        for attachment in engine.attachments:
            engine.flusher.mark(attachment, urgent=True)
        deadline = engine.clock() + limit
        await self._until(min(deadline, engine.clock() + ACK_GRACE), attrgetter("is_through"))
        await self._until(deadline, attrgetter("is_flushed"))
        for connection in self._connections():
            # Without a `retry_after`: it would take the place of the range that each was told, and all come at once.
            connection.close(closing.DRAINING, "the server is going away")
        await self._until(engine.clock() + CLOSE_GRACE, attrgetter("fenced"))

    def send_away(self, reason: str) -> None:
        """See `Hub.send_away`."""
        self._tell_when_to_come_back()
        for connection in self._connections():
            connection.close(closing.DRAINING, reason)

    def _tell_when_to_come_back(self) -> None:
        """Tell all who are connected that the server goes away; they come back at different times."""
        latest = 0.5 + min(4.5, len(self._connections()) / 50)
        for connection in self._connections():
            connection.drain(0.5, latest)

    def _connections(self) -> list[Attachment | RemoteAttachment]:
        return [*self.engine.attachments, *self.engine.guests]

    def end_now(self) -> None:
        """The hub has ended: whoever waits for it is told, and connections that are left are closed."""
        self.engine.draining = self.engine.closed = True
        self.engine.stopping.set()
        self.engine.room.end(lambda: HubClosed("the hub has ended"))
        for connection in self._connections():
            connection.close(closing.DRAINING, "the server is going away", self.engine.retry_after)

    async def _until(self, deadline: float, done: Condition) -> None:
        """Wait until every connection is `done` or gone, at most until `deadline`."""
        event, left = trio.Event(), dict.fromkeys(self._connections())

        def look() -> None:
            while left:
                connection = next(iter(left))
                if not done(connection):
                    return
                del left[connection]
            event.set()

        self.engine.after_step = look
        look()
        try:
            with trio.CancelScope(deadline=deadline):
                await event.wait()
        finally:
            self.engine.after_step = None
