"""The invariant on the figures: what `Hub.stats` tells is what happened, counted anew from what was seen."""

from __future__ import annotations

from collections import Counter
from typing import Final

from ...core import wire
from ...core.session import Session
from ...hub import Receipt
from .record import Record
from .sight import Checker, Line, Published

LATE: Final = 0.25
"""Seconds after which a confirmation that has timed out must be counted as such."""


class Figures(Checker):
    """At the end of each hub, its figures against what was seen of it.

    What happened in its last moment its publishers have not heard of yet: so much more may be in the figures.
    """

    invariant = "the figures tell what happened"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._counts: Counter[tuple[int, str]] = Counter()
        self._sessions: set[tuple[int, str]] = set()

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        self._counts[line.life, "retries"] += isinstance(frame, wire.EventFrame) and frame.retry > 0

    def attached(self, line: Line, session: Session) -> None:
        known = (line.life, session.id) in self._sessions
        self._counts[line.life, "hits" if known else "created"] += 1
        self._sessions.add((line.life, session.id))

    def repeated(self, event: Published, receipt: Receipt) -> None:
        self._counts[event.life, "duplicates"] += receipt.duplicate

    def life_over(self, events: list[Published]) -> None:
        hub = self.record.hub
        assert hub is not None
        stats = hub.stats()
        delivery, pool, total = stats["delivery"], stats["pool"], stats["connections"]["total"]
        counts = {name: count for (life, name), count in self._counts.items() if life == self.record.life}
        created, hits = counts.get("created", 0), counts.get("hits", 0)
        known = [event for event in events if event.receipt is not None]
        unheard = sum(event.receipt is None and not event.refused for event in events)
        states = Counter(event.state for event in known)
        dead = sum(event.critical and event.state == "expired" for event in known)
        tracked = [event.entry for event in known if event.tracked]
        confirmed = sum(entry.confirmed_at is not None for entry in tracked)
        frames = sum(line.events for line in self.record.lines if line.life == self.record.life)
        for name, said, seen, more in (
            ("events_accepted", delivery["events_accepted"], len(known), unheard),
            ("events_evicted", delivery["events_evicted"], states["evicted"], unheard),
            ("events_expired", delivery["events_expired"], states["expired"], unheard),
            ("events_superseded", delivery["events_superseded"], states["superseded"], unheard),
            ("events_duplicate", delivery["events_duplicate"], counts.get("duplicates", 0), 0),
            ("events_sent, redelivered", delivery["events_sent"] + delivery["redelivered"], frames, 0),
            ("messages_confirmed", delivery["messages_confirmed"], confirmed, unheard),
            ("dead_letters", delivery["dead_letters"], dead, unheard),
            ("connections", total, created + hits, 0),
            ("pools_created", pool["pools_created"], created, 0),
            ("pool_hits", pool["pool_hits"], hits, 0),
        ):
            if not seen <= said <= seen + more:
                self.fail(f"{name}: the figures say {said}; {seen} were seen, and at most {more} were not")
        late = sum(
            entry.first_sent is not None
            and entry.first_sent
            > self.record.jumped_at  # an ack may be read before a deadline that was jumped over
            and entry.reason is None
            and (entry.confirmed_at or self.record.clock())
            > entry.first_sent + hub.config.confirm_timeout + LATE
            for entry in tracked
        )
        for name, said, least in (
            ("redelivered", delivery["redelivered"], counts.get("retries", 0)),
            ("messages_timeout", delivery["messages_timeout"], late),
        ):
            if said < least:
                self.fail(f"{name}: the figures say {said}; at least {least} were seen")


IN_FIGURES = (Figures,)
"""All of them."""
