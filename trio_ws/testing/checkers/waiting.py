"""The invariants on publishers who wait for room: in line, and not in vain."""

from __future__ import annotations

import math
from itertools import islice

from ...core.entry import FIRM, Entry
from ...core.mailbox import Mailbox
from .record import Record
from .sight import Checker, Published

AROUND = 256
"""Bytes that an event takes besides its text, at most. A delta counts twice: as it is, and ready to be sent."""

PATIENCE = 0.3
"""Seconds for which there must have been room: what has made it may be noticed at the next step only."""


class Turns(Checker):
    """Of those who publish to a user, whoever waits is served before who comes later."""

    invariant = "publishers wait in line"

    def accepted(self, event: Published) -> None:
        log = self.record.log[event.user, event.epoch]
        for seq in range(event.seq - 1, 0, -1):
            before = log.get(seq)
            if before is None or before.accepted_at < event.asked_at:
                break
            if before.asked_at > event.asked_at:
                self.fail(f"{event}, who waits since {event.asked_at:.3f}, was overtaken by {before}")
                break


class NotInVain(Checker):
    """Nobody waits for room where there is some, or could be."""

    invariant = "nobody waits for room in vain"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._since: dict[str, float] = {}
        self._seen = self._largest = 0

    def due(self) -> float:
        hub = self.record.hub
        return -math.inf if hub is not None and hub.engine.room.waiting else math.inf

    def stepped(self) -> None:
        hub, now = self.record.hub, self.record.clock()
        assert hub is not None
        if not hub.engine.room.waiting:
            self._since.clear()
            return
        for event in islice(self.record.events.values(), self._seen, None):
            self._largest = max(self._largest, 2 * len(event.text) + AROUND)
        self._seen = len(self.record.events)
        for user, box in hub.engine.buffer.mailboxes.items():
            if not (hub.engine.room.line(user) and self._has_room(box)):
                self._since.pop(user, None)
            elif now > max(self._since.setdefault(user, now), self.record.jumped_at) + PATIENCE:
                self.fail(
                    f"a publisher waits for room for {user} since {self._since[user]:.3f}, and there is some"
                )

    def _has_room(self, box: Mailbox) -> bool:
        assert self.record.hub is not None
        engine = self.record.hub.engine
        limits, books = engine.config, engine.books
        spare = [entry for entry in box.entries.values() if _can_be_spared(box, entry)]
        events, size = len(spare), sum(entry.size for entry in spare)
        return (
            box.firm_events - events < limits.max_events_per_user
            and books.firm_events - events < limits.max_events
            and box.firm_bytes - size + self._largest <= limits.max_bytes_per_user
            and books.firm_bytes - size + self._largest <= limits.max_bytes
        )


def _can_be_spared(box: Mailbox, entry: Entry) -> bool:
    """Whether a critical entry is confirmed, and owed only to sessions that may not hold up a publisher."""
    if entry.retention != FIRM or entry.settled or entry.confirmed_at is None:
        return False
    return not any(session.owes(entry) and not session.dormant for session in box.sessions.values())


IN_LINE = (Turns, NotInVain)
"""All of them."""
