"""The invariants on the hub's own state: bounds, the balance of the books, who makes room, and that nothing is left."""

from __future__ import annotations

import math

from ..core.entry import FIRM
from .record import Record
from .sight import Checker, Published

FULL_COUNT_EVERY = 32
"""Steps between two full counts of all mailboxes."""


class Bounds(Checker):
    """Events, bytes, connections: at or under their limits after every step."""

    invariant = "every bound holds"

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        hub = self.record.hub
        assert hub is not None
        limits, books, pool = hub.config, hub.engine.books, hub.engine.pool
        for what, is_, limit in (
            ("events in all", books.events, limits.max_events),
            ("bytes in all", books.bytes, limits.max_bytes),
            ("connections in all", pool.connected, limits.max_connections),
        ):
            if is_ > limit:
                self.fail(f"{is_} {what}, the limit is {limit}")
        for box in hub.engine.buffer.mailboxes.values():
            if len(box.entries) > limits.max_events_per_user:
                self.fail(
                    f"{box.user} has {len(box.entries)} events, the limit is {limits.max_events_per_user}"
                )
            if box.bytes > limits.max_bytes_per_user:
                self.fail(f"{box.user} has {box.bytes} bytes, the limit is {limits.max_bytes_per_user}")
            if len(box.sessions) > limits.max_connections_per_user:
                self.fail(
                    f"{box.user} has {len(box.sessions)} sessions, the limit is {limits.max_connections_per_user}"
                )


class Balance(Checker):
    """accepted = settled + held + evicted + expired + superseded; and now and then all of it counted anew."""

    invariant = "the books balance"

    def due(self) -> float:
        return math.inf

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._steps = 0

    def stepped(self) -> None:
        assert self.record.hub is not None
        books = self.record.hub.engine.books
        if not books.balanced:
            self.fail(
                f"accepted {books.accepted}, settled {books.settled}, held {books.held}, evicted {books.evicted},"
                f" expired {books.expired}, superseded {books.superseded}"
            )
        self._steps += 1
        if self._steps % FULL_COUNT_EVERY == 0:
            self.count()

    def life_over(self, events: list[Published]) -> None:
        self.count()

    def count(self) -> None:
        """Count everything anew."""
        assert self.record.hub is not None
        engine = self.record.hub.engine
        books = engine.books
        entries = [entry for box in engine.buffer.mailboxes.values() for entry in box.entries.values()]
        firm = [entry for entry in entries if entry.retention == FIRM and not entry.settled]
        for what, said, counted in (
            ("events", books.events, len(entries)),
            ("bytes", books.bytes, sum(entry.size for entry in entries)),
            ("held", books.held, sum(entry.weight for entry in entries if not entry.settled)),
            ("history", books.history, sum(entry.settled for entry in entries)),
            ("firm events", books.firm_events, len(firm)),
            ("firm bytes", books.firm_bytes, sum(entry.size for entry in firm)),
            (
                "unconfirmed",
                sum(box.unconfirmed for box in engine.buffer.mailboxes.values()),
                sum(entry.tracked and entry.confirmed_at is None for entry in entries),
            ),
            ("connections", engine.pool.connected, len(engine.attachments)),
        ):
            if said != counted:
                self.fail(f"{what}: the books say {said}, there are {counted}")


class Victims(Checker):
    """Who goes when room is needed: history, then what is superseded, then the lowest class; the oldest first."""

    invariant = "room is made from the lowest class, the oldest first"

    def due(self) -> float:
        return math.inf

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._evicted = 0
        self._life = 0
        self._live: dict[str, list[Published]] = {}
        self._heads: dict[str, int] = {}

    def accepted(self, event: Published) -> None:
        # One that waited for room may have made room for others before its publisher came to know of it.
        if not event.critical and event.state != "evicted":
            self._live.setdefault(event.user, []).append(event)

    def stepped(self) -> None:
        hub = self.record.hub
        assert hub is not None
        if self._life != self.record.life:
            self._life, self._evicted = self.record.life, 0
            self._live.clear()
            self._heads.clear()
        if hub.engine.books.evicted != self._evicted:
            self._evicted = hub.engine.books.evicted
            for user, live in self._live.items():
                self._look(user, [event for event in live if event.state == "evicted"])
                self._live[user] = [e for e in live if e.state in ("held", "sent", "confirmed")]
        for user, box in hub.engine.buffer.mailboxes.items():
            self._heads[user] = box.head

    def _look(self, user: str, victims: list[Published]) -> None:
        assert self.record.hub is not None
        box = self.record.hub.engine.buffer.mailboxes.get(user)
        if not victims or box is None:
            return
        worst = max(victims, key=lambda event: (event.priority, event.seq))
        rank = int(worst.priority) + 2
        for entry in box.entries.values():
            if entry.first > self._heads.get(user, 0):
                break  # what has just arrived is never its own victim
            if entry.settled or entry.superseded:
                why = "settled" if entry.settled else "superseded"
                self.fail(f"{worst} went, while {user} #{entry.seq} is {why} and stays")
            elif entry.retention < rank or (entry.retention == rank and entry.seq < worst.seq):
                self.fail(f"{worst} went, while {user} #{entry.seq} of class {entry.retention} stays")


IN_THE_BOOKS = (Bounds, Balance, Victims)
"""All of them."""
