"""The step in which an event is accepted: it is given its place in a log, and who is to be sent it is marked."""

from __future__ import annotations

from typing import Final

from ..core.mailbox import Mailbox
from ..errors import EventTooLarge
from .attachment import Attachment
from .engine import Engine
from .intake import Intake
from .parcel import Parcel
from .receipt import Receipt

COMPANY: Final = 64
"""How many events wait for each other on a busy connection at the most; then the batch window is over."""


class Acceptance:
    """Accepts what was checked and encoded, where there is room.

    Args:
      engine: the hub's state.
      intake: makes entries of parcels.
    """

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._engine = engine
        self._intake = intake

    def accept(self, user: str, parcel: Parcel) -> Receipt | None:
        """Accept a parcel if there is room, or know it for one that was accepted before; None where there is none.

        Raises:
          EventTooLarge: it is larger than a user's mailbox may be.
        """
        engine = self._engine
        buffer = engine.buffer
        box = buffer.mailbox(user)
        timeout = engine.config.confirm_timeout
        if parcel.id is not None and (known := box.find(parcel.id)) is not None:
            engine.books.duplicates += 1
            return Receipt(known, box, timeout, True)
        id = parcel.id or parcel.shared_id or engine.fresh_id()
        entry = self._intake.entry(parcel, id, engine.clock(), engine.wall_clock())
        if entry.size > buffer.largest:
            raise EventTooLarge("the event is larger than a user's mailbox may be", field="payload")
        if box.sessions and buffer.is_pressed(box, entry):
            self._write_first(box)
        if not buffer.accept(box, entry):
            return None
        for session in box.sessions.values():
            link = session.link
            if link is not None and not link.marked:
                urgent = entry.tracked or box.head - session.cursor >= COMPANY
                if urgent or not link.waiting:
                    engine.flusher.mark(link, urgent=urgent)
        if parcel.ttl is not None:
            engine.arm(box, entry.expires_at)
        if engine.books.resolved:
            engine.react()
        return Receipt(entry, box, timeout, False)

    def _write_first(self, box: Mailbox) -> None:
        """Let connections take what waits for them, before an event that they were not sent yet makes room for one."""
        now = self._engine.clock()
        for session in list(box.sessions.values()):
            attachment: Attachment | None = session.link
            cursor = -1
            while attachment is not None and attachment.can_take and session.cursor > cursor:
                cursor = session.cursor  # one that fails is being closed, and gets no further
                attachment.flush(now)
