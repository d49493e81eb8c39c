"""One user's bounded log: events in the order of acceptance, with sessions as cursors over it.

The mailbox numbers what is accepted (`append`), takes note of what sessions acked (`acked`), and lets entries go one at
a time when `Buffer` asks for room (`make_room`). What goes is remembered in `gone`, so that each session can be told.
It decides *which* entry goes; `Buffer` decides *when*, over all mailboxes.

Entries are kept under their first seq, in a dict that is in seq order because it is filled in that order; each retention
class has an ordered dict of its own, so that the oldest of the lowest class is found, and any entry leaves, in O(1).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from . import payload, wire
from .books import Books
from .entry import (
    CLASS_SETTLED,
    CLASS_SUPERSEDED,
    CLASSES,
    EVICTED,
    EXPIRED,
    FIRM,
    SETTLED,
    SUPERSEDED,
    Entry,
)
from .gaps import Gone

if TYPE_CHECKING:
    from .session import Session

REMEMBERED_IDS: Final = 1024


class Mailbox:
    """The log of one user.

    Attributes:
      epoch: names this life of the log; (epoch, seq) names one event for ever.
      head: the newest seq; 0 before the first event.
      entries: what is held, by first seq, in seq order.
      sent_high: the highest seq that any session was ever sent: nothing at or below it is joined.
      sessions: the cursors over it, by session id.
      firm_events, firm_bytes: unsettled critical entries, which can't make room.
      last_event_at: when the newest event was accepted.
      stale: it changed since `Buffer` last ranked it.
    """

    __slots__ = (
        "_books",
        "_classes",
        "_deltas",
        "_history",
        "_history_ttl",
        "_ids",
        "_keys",
        "_last",
        "_max_joined_bytes",
        "bytes",
        "calm",
        "closed",
        "entries",
        "epoch",
        "firm_bytes",
        "firm_events",
        "gone",
        "head",
        "joined_cache",
        "last_event_at",
        "next_expiry",
        "relief_dry",
        "sent_high",
        "sessions",
        "stale",
        "unconfirmed",
        "user",
    )

    def __init__(
        self,
        user: str,
        epoch: str,
        *,
        books: Books,
        history: OrderedDict[Entry, Mailbox],
        history_ttl: float,
        max_joined_bytes: int,
    ) -> None:
        self.user = user
        self.epoch = epoch
        self.head = self.sent_high = self.calm = 0
        self.entries: dict[int, Entry] = {}
        self.gone = Gone()
        self.sessions: dict[str, Session] = {}
        self.bytes = self.firm_events = self.firm_bytes = self.unconfirmed = 0
        self.last_event_at, self.next_expiry = -math.inf, math.inf
        self.stale = self.closed = self.relief_dry = False
        self.joined_cache: tuple[int, int, bytes] | None = None
        self._books = books
        self._history = history
        self._history_ttl = history_ttl
        self._max_joined_bytes = max_joined_bytes
        self._classes: dict[int, OrderedDict[int, Entry]] = {}
        self._keys: dict[tuple[str, str], Entry] = {}
        self._ids: OrderedDict[str, Entry] | None = None
        self._deltas: deque[int] = deque()
        self._last: Entry | None = None

    # -- what comes in

    def find(self, id: str) -> Entry | None:
        """The entry that a publisher's idempotency key made, while it is held or among the last `REMEMBERED_IDS`."""
        return None if self._ids is None else self._ids.get(id)

    def append(self, entry: Entry) -> None:
        """Give `entry` the next seq. The caller (`Buffer.accept`) has made room for it."""
        if entry.key is not None and not entry.merge and not entry.critical:
            self._supersede(entry)
        self.head = seq = self.head + 1
        entry.first = entry.seq = seq
        self.entries[seq] = entry
        self.bytes += entry.size
        books = self._books
        books.accepted += 1
        books.held += 1
        books.events += 1
        books.bytes += entry.size
        if entry.retention == FIRM:
            self.firm_events += 1
            self.firm_bytes += entry.size
            books.firm_events += 1
            books.firm_bytes += entry.size
        else:
            self._class(entry.retention)[seq] = entry
        if entry.tracked:
            self.unconfirmed += 1
        if entry.merge:
            self._note_delta(entry)
        if entry.owned_id:
            self._remember(entry)
        if entry.expires_at < self.next_expiry:
            self.next_expiry = entry.expires_at
        self._last = entry
        self.last_event_at = entry.accepted_at

    def _supersede(self, entry: Entry) -> None:
        """Let `entry` take the place of the held one of its type and key, for every session that was not sent that yet."""
        assert entry.key is not None
        name = (entry.type, entry.key)
        old = self._keys.get(name)
        self._keys[name] = entry
        if old is None or old.settled:
            return
        if old.first > self.sent_high:
            self._drop(old, SUPERSEDED)
        else:
            del self._class(old.retention)[old.first]
            old.superseded = True
            self._class(CLASS_SUPERSEDED)[old.first] = old

    def _note_delta(self, entry: Entry) -> None:
        """Keep in mind that `entry` could be joined with the delta right before it, if there is one."""
        last = self._last
        if (
            last is None
            or last.seq != entry.seq - 1
            or not _joinable(last, entry)
            or last.reason
            or last.into
        ):
            return
        if last.first <= self.sent_high:
            return
        self._deltas.append(last.first)
        if len(self._deltas) > 2 * len(self.entries) + 64:
            self._deltas = deque(s for s in self._deltas if s > self.sent_high and s in self.entries)

    def _remember(self, entry: Entry) -> None:
        if self._ids is None:
            self._ids = OrderedDict()
        self._ids[entry.id] = entry
        while len(self._ids) > REMEMBERED_IDS + len(self.entries):
            oldest = self._ids.popitem(last=False)[1]
            if self._holds(oldest):
                self._ids[oldest.id] = oldest

    def _holds(self, entry: Entry) -> bool:
        held = entry if entry.into is None else entry.into
        return self.entries.get(held.first) is held

    # -- what sessions processed

    def acked(self, session: Session, low: int, high: int, now: float) -> list[Entry]:
        """Note that `session` processed all that it was sent of the seqs above `low`, up to `high`.

        Returns: the tracked entries that it confirmed, for the confirmation figures.
        """
        confirmed: list[Entry] = []
        alone = len(self.sessions) == 1
        skipped = session.skipped
        for entry in self._within(low, high):
            if skipped and entry.first in skipped:
                continue
            if entry.confirmed_at is None:
                self._confirm(entry, now, confirmed)
            if not entry.settled and (alone or not self._owed(entry)):
                self._settle(entry)
        if skipped:
            session.skipped = {first for first in skipped if first > high}
            for first in sorted(skipped - session.skipped):
                self.disown(first)
        self.relief_dry = False
        return confirmed

    def _within(self, low: int, high: int) -> Iterator[Entry]:
        """The entries that lie wholly in the seqs above `low`, up to `high`."""
        entries, seq = self.entries, low + 1
        while seq <= high:
            entry = entries.get(seq)
            if entry is None:
                seq = self.gone.end_of(seq) + 1
            elif entry.seq > high:
                return
            else:
                seq = entry.seq + 1
                yield entry

    def _confirm(self, entry: Entry, now: float, confirmed: list[Entry]) -> None:
        entry.confirmed_at = now
        if entry.tracked:
            self.unconfirmed -= 1
            confirmed.append(entry)
        if entry.waiters is not None:
            self._books.resolved.append(entry)

    def _owed(self, entry: Entry) -> bool:
        """Whether some session is still to process `entry`."""
        return any(session.owes(entry) for session in self.sessions.values())

    def _settle(self, entry: Entry) -> None:
        """`entry` is confirmed and owed to nobody: from now on it is history."""
        books = self._books
        if entry.retention == FIRM:
            self._soften(entry)
        else:
            del self._class(CLASS_SUPERSEDED if entry.superseded else entry.retention)[entry.first]
        entry.settled = True
        self.next_expiry = min(self.next_expiry, entry.accepted_at + self._history_ttl)
        self._class(CLASS_SETTLED)[entry.first] = entry
        self._history[entry] = self
        books.held -= entry.weight
        books.settled += entry.weight
        books.history += 1

    def _soften(self, entry: Entry) -> None:
        """A critical entry ceases to be firm."""
        self.firm_events -= 1
        self.firm_bytes -= entry.size
        self._books.firm_events -= 1
        self._books.firm_bytes -= entry.size

    def release(self, session: Session) -> None:
        """`session` ended or expired: nothing is owed to it any more. What nobody confirmed stays held."""
        self.sessions.pop(session.id, None)
        self.calm = max(self.calm, session.acked)
        for entry in list(self.entries.values()):
            if entry.settled or (entry.seq <= session.acked and not session.skipped):
                continue
            if entry.confirmed_at is not None:
                if not self._owed(entry):
                    self._settle(entry)
            elif entry.superseded:
                self.disown(entry.first)
        self.relief_dry = False

    def disown(self, first: int) -> None:
        """Drop the superseded entry at `first` if no session that was sent it can still confirm it."""
        entry = self.entries.get(first)
        if entry is None or not entry.superseded or entry.settled:
            return
        if not self._owed(entry):
            if entry.confirmed_at is not None:
                self._settle(entry)
            else:
                self._drop(entry, SUPERSEDED)

    # -- where a session may start

    @property
    def low(self) -> int:
        """The seq before the oldest that is held; the head where nothing is."""
        return next(iter(self.entries.values())).first - 1 if self.entries else self.head

    @property
    def first_unconfirmed(self) -> int:
        """The oldest seq that nobody confirmed; one above the head where there is none."""
        return next((e.first for e in self.entries.values() if e.confirmed_at is None), self.head + 1)

    def boundary(self, seq: int) -> int:
        """The highest position, at most `seq`, from which the log can be read on: not amid deltas that were joined."""
        while seq < self.head and seq + 1 not in self.entries and self.gone.at(seq + 1) is None:
            seq -= 1
        return seq

    # -- what goes

    def make_room(self, *, history: bool = True) -> bool:
        """Let the entry go that can be spared best: the oldest of the lowest retention class. O(1) amortised.

        Before anything unsettled is evicted, neighbouring deltas that nobody was sent yet are joined.

        Args:
          history: whether settled entries count; `Buffer` takes those in an order of its own.

        Returns: False where all that is left is firm.
        """
        for cls in CLASSES:
            queue = self._classes.get(cls)
            if cls == CLASS_SETTLED and not history:
                continue
            if cls > CLASS_SUPERSEDED and self._join_deltas():
                return True
            if queue:
                entry = next(iter(queue.values()))
                if cls == CLASS_SETTLED:
                    self.forget(entry)
                else:
                    self._drop(entry, SUPERSEDED if cls == CLASS_SUPERSEDED else EVICTED)
                return True
        return False

    def relieve(self) -> bool:
        """Turn into history the oldest critical entry that is confirmed and owed only to parked or stalled sessions.

        The last resort before a publisher has to wait.

        Returns: False where there is none; that is remembered until an ack or the end of a session can change it.
        """
        if self.relief_dry:
            return False
        for entry in self.entries.values():
            if entry.settled or entry.confirmed_at is None or entry.retention != FIRM:
                continue
            if not any(s.owes(entry) and not s.dormant for s in self.sessions.values()):
                self._settle(entry)
                return True
        self.relief_dry = True
        return False

    def forget(self, entry: Entry) -> None:
        """Let the settled `entry` go out of the history."""
        del self._classes[CLASS_SETTLED][entry.first]
        del self._history[entry]
        self._books.history -= 1
        self._remove(entry, SETTLED)

    def _drop(self, entry: Entry, reason: str) -> None:
        """Let the unsettled `entry` go for `reason`."""
        if entry.retention == FIRM:
            self._soften(entry)
        else:
            del self._class(CLASS_SUPERSEDED if entry.superseded else entry.retention)[entry.first]
        if entry.tracked and entry.confirmed_at is None:
            self.unconfirmed -= 1
        self._books.lose(entry, reason)
        self._remove(entry, reason)

    def _remove(self, entry: Entry, reason: str) -> None:
        del self.entries[entry.first]
        self.bytes -= entry.size
        self._books.events -= 1
        self._books.bytes -= entry.size
        entry.tail, entry.payload = (
            b"",
            None,
        )  # what still names the entry (an id, a receipt) must not keep its bytes
        if entry.key is not None and self._keys.get((entry.type, entry.key)) is entry:
            del self._keys[entry.type, entry.key]
        lost = entry.critical and reason != SETTLED
        self.gone.add(entry.first, entry.seq, entry.type, reason, lost)
        self.gone.compact(self._cursors())

    def _cursors(self) -> set[int]:
        """The positions that somebody may go on from."""
        cursors = {self.calm}
        for session in self.sessions.values():
            cursors.add(session.acked)
            cursors.add(session.cursor)
        return cursors

    def _join_deltas(self) -> bool:
        """Join the oldest run of neighbouring deltas that no session was sent yet into its last one."""
        while self._deltas:
            start = self.entries.get(self._deltas.popleft())
            if start is None or not start.merge or start.first <= self.sent_high:
                continue
            run = self.neighbours(start, self.head)
            if len(run) > 1:
                self._join(run)
                return True
        return False

    def neighbours(self, start: Entry, upto: int) -> list[Entry]:
        """The deltas from `start` on that may be joined: nothing between them, of one type and key, within the size limit."""
        run, size, entry = [start], start.size, self.entries.get(start.seq + 1)
        while entry is not None and entry.seq <= upto and _joinable(start, entry) and not entry.superseded:
            size += len(entry.payload or b"")
            if size > self._max_joined_bytes:
                break
            run.append(entry)
            entry = self.entries.get(entry.seq + 1)
        return run

    def joined_tail(self, run: list[Entry]) -> tuple[bytes, bytes]:
        """The wire form and the payload of the deltas of `run` as one event, which is the last one's."""
        text = payload.append_all([entry.payload or b"null" for entry in run])
        last = run[-1]
        return wire.event_tail(last.id, last.type, text, last.ts), text

    def _join(self, run: list[Entry]) -> None:
        """Put one entry in the place of the deltas of `run`."""
        start, last = run[0], run[-1]
        tail, text = self.joined_tail(run)
        joined = Entry(
            id=last.id,
            type=last.type,
            tail=tail,
            retention=last.retention,
            tracked=False,
            ts=last.ts,
            accepted_at=start.accepted_at,
            expires_at=max(e.expires_at for e in run),
            key=last.key,
            merge=True,
            payload=text,
            truncated=any(e.truncated for e in run),
            owned_id=last.owned_id,
        )
        joined.first, joined.seq = start.first, last.seq
        waiters = [w for e in run if e.waiters for w in e.waiters]
        joined.waiters = waiters or None
        queue = self._class(joined.retention)
        size = 0
        for entry in run:
            size += entry.size
            entry.into = joined
            entry.tail, entry.payload = b"", None
            if entry is not start:
                del queue[entry.first]
                del self.entries[entry.first]
        self.entries[start.first] = queue[start.first] = joined
        self.bytes += joined.size - size
        self._books.bytes += joined.size - size
        self._books.events -= len(run) - 1
        self._books.merged += len(run) - 1
        if self._last is last:
            self._last = joined

    def sweep(self, now: float) -> None:
        """Let go what has expired by `now`: unconfirmed events past their time, and history older than its TTL."""
        if now < self.next_expiry:
            return
        earliest = math.inf
        for entry in list(self.entries.values()):
            if entry.settled:
                due = entry.accepted_at + self._history_ttl
                if due <= now:
                    self.forget(entry)
                    continue
            else:
                due = entry.expires_at
                if due <= now:
                    self.expire(entry)
                    continue
            earliest = min(earliest, due)
        self.next_expiry = earliest

    def expire(self, entry: Entry) -> None:
        """Let the unsettled `entry` go because its time has passed; a critical one is a dead letter."""
        if entry.confirmed_at is not None:
            # Somebody processed it: for the rest it becomes history that is let go, not a loss.
            self._settle(entry)
            self.forget(entry)
            return
        if entry.critical:
            self._books.dead_letters += 1
            self._books.dead.append((self, entry, entry.tail))
        self._drop(entry, EXPIRED)

    def _class(self, cls: int) -> OrderedDict[int, Entry]:
        queue = self._classes.get(cls)
        if queue is None:
            queue = self._classes[cls] = OrderedDict()
        return queue


def _joinable(start: Entry, entry: Entry) -> bool:
    """Whether two neighbouring deltas belong to one stream."""
    return (
        start.merge
        and entry.merge
        and start.type == entry.type
        and start.key == entry.key
        and start.retention == entry.retention
    )
