"""The invariants on the hub's own state: bounds, the balance of the books, who makes room, and that nothing is left."""

from __future__ import annotations

import math
from collections.abc import Collection

from ...core.entry import FIRM, Entry
from ...core.mailbox import Mailbox
from ...core.session import Session
from .record import Record
from .sight import Checker, Line, Published

FULL_COUNT_EVERY = 32
"""Steps between two full counts of all mailboxes."""

NEAR = 32_768
"""Bytes below a bound from which on it may be the bytes that room is made for."""

SETTLED_EVERY = 8
"""Steps between two looks at what has settled."""


class Bounds(Checker):
    """Events, bytes, connections: at or under their limits after every step."""

    invariant = "every bound holds"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._fetched: set[Mailbox] = set()

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        hub = self.record.hub
        assert hub is not None
        limits, books, pool = hub.config, hub.engine.books, hub.engine.pool
        boxes = hub.engine.buffer.mailboxes.values()
        # Who comes back to a log in a store is given it, however full memory is: a step before there is a session. And
        # who is connected is given what waits there. It may stay until a cleanup finds that its session is over.
        self._fetched = {
            box
            for box in boxes
            if box in self._fetched or self.record.coming[box.user] or (box.rest is not None and box.sessions)
        }
        there = sum(bool(box.sessions) or box in self._fetched for box in boxes) * self.record.durable
        # And given what waits in the store, besides as much that waits for others.
        most = (1 + self.record.durable) * limits.max_events_per_user
        most_bytes = (1 + self.record.durable) * limits.max_bytes_per_user
        beyond = self.allowed_beyond(None)
        for what, is_, limit in (
            ("events in all", books.events, limits.max_events + there * most + beyond),
            ("bytes in all", books.bytes, limits.max_bytes + there * most_bytes + 1024 * beyond),
            ("connections in all", pool.sockets, limits.max_connections),
            ("events on their way to the disk", books.landing_events, limits.max_events_per_user + beyond),
            (
                "bytes on their way to the disk",
                books.landing_bytes,
                limits.max_bytes_per_user + 1024 * beyond,
            ),
        ):
            if is_ > limit:
                self.fail(f"{is_} {what}, the limit is {limit}")
        for box in boxes:
            beyond = self.allowed_beyond(box.user)
            if len(box.entries) > most + beyond:
                self.fail(f"{box.user} has {len(box.entries)} events, the limit is {most}")
            if box.bytes > most_bytes + 1024 * beyond:
                self.fail(f"{box.user} has {box.bytes} bytes, the limit is {most_bytes}")
            stored = 0 if box.rest is None else box.rest.events
            if stored > limits.max_stored_events_per_user + beyond:
                self.fail(f"{box.user} has {stored} stored, the limit is {limits.max_stored_events_per_user}")
            if len(box.sessions) > limits.max_connections_per_user:
                self.fail(
                    f"{box.user} has {len(box.sessions)} sessions, the limit is {limits.max_connections_per_user}"
                )

    def allowed_beyond(self, user: str | None) -> int:
        """How many events may have come in beyond the bounds, of one user or of all."""
        return 0


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
        boxes = engine.buffer.mailboxes.values()
        entries = [entry for box in boxes for entry in box.entries.values()]
        firm = [entry for entry in entries if entry.retention == FIRM and not entry.settled]
        for what, said, counted in (
            ("events", books.events, len(entries)),
            ("bytes", books.bytes, sum(entry.size for entry in entries)),
            (
                "held here",
                books.held - books.asleep - books.spilled,
                sum(e.weight for e in entries if not e.settled),
            ),
            ("spilled", books.spilled, sum(box.rest.events for box in boxes if box.rest is not None)),
            ("history", books.history, sum(entry.settled for entry in entries)),
            ("firm events", books.firm_events, len(firm)),
            ("firm bytes", books.firm_bytes, sum(entry.size for entry in firm)),
            (
                "unconfirmed",
                sum(box.unconfirmed for box in boxes),
                sum(entry.tracked and entry.confirmed_at is None for entry in entries),
            ),
            ("connections", engine.pool.connected, len(engine.attachments)),
        ):
            if said != counted:
                self.fail(f"{what}: the books say {said}, there are {counted}")


class Victims(Checker):
    """Who goes when room is needed: history, then what is superseded, then the lowest class; the oldest first.

    While a broadcast is under way it can't tell when room was made for which of its copies, and says nothing.
    """

    invariant = "room is made from the lowest class, the oldest first"

    def due(self) -> float:
        return math.inf

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._evicted = 0
        self._life = 0
        self._live: dict[str, list[Published]] = {}
        self._heads: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

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
            self._sizes.clear()
        if hub.engine.books.evicted != self._evicted:
            self._evicted = hub.engine.books.evicted
            for user, live in self._live.items():
                victims = [] if self.record.broadcasts else [e for e in live if e.state == "evicted"]
                self._look(user, victims)
                if victims:
                    self._compare(user, len(victims))
                self._live[user] = [e for e in live if e.state in ("held", "sent", "confirmed")]
        for user, box in hub.engine.buffer.mailboxes.items():
            self._heads[user] = box.head
            self._sizes[user] = len(box.entries)

    def _compare(self, user: str, victims: int) -> None:
        """Whether room in all was made by the user who has the most events. Where bytes are short, nothing is said."""
        hub = self.record.hub
        assert hub is not None
        limits, boxes = hub.config, hub.engine.buffer.mailboxes
        before, head = self._sizes.get(user, 0), self._heads.get(user, 0)
        if user not in boxes or hub.engine.books.bytes + NEAR > min(
            limits.max_bytes, limits.max_bytes_per_user
        ):
            return
        most = before + boxes[user].head - head  # what it can have held meanwhile
        if most >= limits.max_events_per_user:
            return  # by its own bound
        for other, box in boxes.items():
            least = min(len(box.entries), self._sizes.get(other, 0))
            if least > most + 1 and least > box.firm_events:
                self.fail(f"{victims} events of {user} went, who had at most {most}; {other} has {least}")

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
            if entry.settled and any(session.owes(entry) for session in box.sessions.values()):
                continue  # relief for one who came later in the same step
            if entry.settled or entry.superseded:
                why = "settled" if entry.settled else "superseded"
                self.fail(f"{worst} went, while {user} #{entry.seq} is {why} and stays")
            elif entry.retention < rank or (entry.retention == rank and entry.seq < worst.seq):
                self.fail(f"{worst} went, while {user} #{entry.seq} of class {entry.retention} stays")


class Settling(Checker):
    """What is confirmed and owed to nobody is settled, and nothing else but what only the parked and stalled still owe;
    and a session counts as having acked only what came back from it."""

    invariant = "settled is what was confirmed and is owed to nobody"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._steps = self._life = 0
        self._looked_at = -math.inf
        self._settled: set[Entry] = set()
        self._dormant: set[Session] = set()
        self._acked: dict[Session, int] = {}
        self._counts: dict[Session, int] = {}

    def attached(self, line: Line, session: Session) -> None:
        self._acked.setdefault(session, session.acked)

    def acked(self, line: Line, seq: int) -> None:
        if line.attachment is not None and seq <= line.attachment.session.top:
            session = line.attachment.session
            self._acked[session] = max(seq, self._acked.get(session, 0))
            # Amid deltas that are joined as it comes: it counts up to the ones before, and so it does for good.
            counts = max(self._counts.get(session, 0), session.box.boundary(seq))
            self._counts[session] = min(counts, self._acked[session])

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        assert self.record.hub is not None
        if self._life != self.record.life:
            self._life = self.record.life
            self._settled.clear()
            self._dormant.clear()
            self._acked.clear()
            self._counts.clear()
        boxes = self.record.hub.engine.buffer.mailboxes.values()
        self._dormant.update(s for box in boxes for s in box.sessions.values() if s.dormant)
        self._steps += 1
        if self._steps % SETTLED_EVERY == 0:
            self._look(boxes)

    def _look(self, boxes: Collection[Mailbox]) -> None:
        settled: set[Entry] = set()
        for box in boxes:
            for session in box.sessions.values():
                acked = self._acked.get(session, session.base)
                if not session.plain and session.acked > acked:
                    self.fail(f"a session of {box.user} counts as at {session.acked}, and has acked {acked}")
                if session.acked < self._counts.get(session, 0):
                    self.fail(f"a session of {box.user} has acked {acked}, and counts as at {session.acked}")
            awake = [s for s in box.sessions.values() if self._is_awake(s)]
            for entry in box.entries.values():
                if entry.settled:
                    settled.add(entry)
                    if entry not in self._settled and any(session.owes(entry) for session in awake):
                        self.fail(f"{box.user} #{entry.seq} is settled, and a session still owes it")
                elif entry.confirmed_at is not None and not any(
                    session.owes(entry) for session in box.sessions.values()
                ):
                    self.fail(f"{box.user} #{entry.seq} is confirmed and owed to nobody, and has not settled")
        self._settled = settled
        self._dormant.clear()
        self._looked_at = self.record.clock()

    def _is_awake(self, session: Session) -> bool:
        """Whether it has been there, and has been taking data, since the last look."""
        assert self.record.hub is not None
        line = self.record.line_of(session.link) if session.link is not None else None
        if line is None or session in self._dormant:
            return False
        return max(line.opened_at, line.free_since) < self._looked_at


IN_THE_BOOKS = (Bounds, Balance, Victims, Settling)
"""All of them."""
