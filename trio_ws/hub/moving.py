"""A log that leaves this process as another one has it by now. Where several share a store, each log is one's."""

from __future__ import annotations

from typing import Final

from ..core import closing
from ..core.limits import spread
from ..errors import OwnedElsewhere
from .engine import Engine
from .loading import Loader
from .runs import RunDesk

COME_BACK: Final = 0.3
"""Seconds after which clients come back whose connections are closed for it, a third of that apart."""


class Moving:
    """Has logs out of memory that are another process's.

    Attributes:
      moved: how many were, since the start.
    """

    def __init__(self, engine: Engine, loader: Loader, desk: RunDesk) -> None:
        self.moved = 0
        self._engine = engine
        self._loader = loader
        self._desk = desk

    def drop(self, user: str) -> None:
        """Have the log of `user` out of memory, as it is, and have nothing more of it written. Not a checkpoint.

        Its connections are fenced off, and closed with 4503: they come back in a moment. Who waits for something of it
        is told that it is not known here what becomes of that.
        """
        engine = self._engine
        self.moved += 1
        self._loader.give_up(user)
        box = engine.buffer.mailboxes.get(user)
        for session in [] if box is None else list(box.sessions.values()):
            attachment = session.link
            if attachment is not None:
                engine.let_go(attachment)
            engine.pool.move(session)
            if attachment is not None:
                after = spread(COME_BACK, self.moved)
                attachment.close(closing.DRAINING, "another node has the user's events", after)
        if box is not None:
            engine.timers.disarm(box)
        self._desk.drop(user)
        engine.buffer.move(user)
        if engine.durability is not None:
            engine.durability.abandon(user)
        engine.room.end_line(user, lambda: OwnedElsewhere(user))
        engine.react()
