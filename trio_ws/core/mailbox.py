"""One user's bounded log: events in the order of acceptance, with sessions as cursors over it.

The mailbox numbers what is accepted (`append`), takes note of what sessions acked (`acked`), and lets entries go one at
a time when `Buffer` asks for room (`make_room`). What goes is remembered in `gone`, so that each session can be told.
It decides *which* entry goes; `Buffer` decides *when*, over all mailboxes.

Entries are kept under their first seq, in a dict that is in seq order because it is filled in that order. Beside it
stand, each an idea of its own: `Retention`, who goes first; `Deltas`, who may be joined; `Remembered`, whose key is
known; and `Gone`, what left and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .books import Books
from .deltas import Deltas, joined
from .entry import (
    CLASS_HIGH,
    CLASS_LOW,
    CLASS_NORMAL,
    CLASS_SETTLED,
    CLASS_SUPERSEDED,
    EVICTED,
    EXPIRED,
    FIRM,
    GONE,
    MOVED,
    SETTLED,
    SUPERSEDED,
    Entry,
)
from .gaps import Gone
from .journal import Journal, Journals
from .ledger import Ledger
from .remembered import Remembered
from .rest import Rest
from .retention import Line, Retention
from .run_view import FOLDED
from .runs import Runs
from .track import Track

if TYPE_CHECKING:
    from .session import Session


class Mailbox:
    """The log of one user.

    Attributes:
      epoch: names this life of the log; (epoch, seq) names one event for ever.
      head: the newest seq; 0 before the first event.
      ready: sessions may be given what is up to here; the head, unless what follows is to be made durable first.
      track: what of it is not durable yet; None where nothing is to be.
      rest: what of it is in a store only, behind all entries; None where nothing is.
      entries: what is held, by first seq, in seq order.
      deltas: those of them that may be joined.
      sent_high: the highest seq that any session was ever sent: nothing at or below it is joined.
      sessions: the cursors over it, by session id.
      runs: the runs of agents that are known of this user; None while there were none.
      history: how many of the entries have settled.
      journal: what its sessions were sent and answered; None while nothing was.
      firm_events, firm_bytes: unsettled critical entries, which can't make room.
      unconfirmed: how many tracked entries nobody has confirmed yet.
      calm: how far the sessions that are over had acked, the farthest of them: their clients may go on from there.
      last_event_at: when the newest event was accepted.
      relief_dry: `relieve` found nothing, and nothing has happened since that could change it.
      stale: it changed since `Buffer` last ranked it.
    """

    __slots__ = (
        "_books",
        "_history",
        "_history_ttl",
        "_journals",
        "_keys",
        "_last",
        "_remembered",
        "_retention",
        "bytes",
        "calm",
        "closed",
        "deltas",
        "entries",
        "epoch",
        "firm_bytes",
        "firm_events",
        "gone",
        "head",
        "history",
        "journal",
        "last_event_at",
        "next_expiry",
        "ready",
        "relief_dry",
        "rest",
        "runs",
        "sent_high",
        "sessions",
        "stale",
        "track",
        "unconfirmed",
        "user",
    )

    def __init__(
        self,
        user: str,
        epoch: str,
        *,
        books: Books,
        history: Line,
        history_ttl: float,
        journals: Journals,
        max_joined_bytes: int,
        ledger: Ledger | None = None,
    ) -> None:
        self.user = user
        self.epoch = epoch
        self.head = self.ready = self.sent_high = self.calm = 0
        self.entries: dict[int, Entry] = {}
        self.gone = Gone()
        self.sessions: dict[str, Session] = {}
        self.runs: Runs | None = None
        self.bytes = self.history = self.firm_events = self.firm_bytes = self.unconfirmed = 0
        self.last_event_at, self.next_expiry = -math.inf, math.inf
        self.stale = self.closed = self.relief_dry = False
        self.deltas = Deltas(self.entries, max_joined_bytes)
        self._books = books
        self._history = history
        self._history_ttl = history_ttl
        self._journals = journals
        self.journal: Journal | None = None
        self._retention = Retention(self)
        self._remembered = Remembered(self.entries)
        self._keys: dict[tuple[str, str], Entry] = {}
        self._last: Entry | None = None
        self.rest: Rest | None = None
        self.track = None if ledger is None else Track(ledger, self)

    # -- what comes in

    def find(self, id: str) -> Entry | None:
        """The entry that was published under the idempotency key `id`, as far back as keys are remembered."""
        known = self._remembered.find(id)
        return known if known is not None or self.rest is None else self.rest.find(id)

    def append(self, entry: Entry) -> None:
        """Give `entry` the next seq. The caller (`Buffer.accept`) has made room for it."""
        self.head = seq = self.head + 1
        entry.first = entry.seq = seq
        entry.user = self.user
        self.entries[seq] = entry
        self.bytes += entry.size
        if entry.retention == FIRM:
            self.firm_events += 1
            self.firm_bytes += entry.size
        self._books.accept(entry)
        entry.line = entry.retention
        if entry.tracked:
            self.unconfirmed += 1
        if entry.merge:
            self.deltas.note(self._last, entry, self.sent_high)
        if entry.owned_id:
            self._remembered.add(entry)
        if entry.expires_at < self.next_expiry:
            self.next_expiry = entry.expires_at
        self._last = entry
        self.last_event_at = entry.accepted_at
        if self.track is None:
            self.ready = seq
        else:
            self.track.accepted(entry)

    def spill(self, entry: Entry) -> None:
        """Give `entry` the next seq, for the store only: memory has no room for it, or for what came before it."""
        assert self.track is not None
        self.head = seq = self.head + 1
        if self.rest is None:
            self.rest = Rest(self, self._books, seq)
        entry.first = entry.seq = seq
        entry.user = self.user
        self.rest.put(entry)
        self._last = entry
        self.last_event_at = entry.accepted_at
        self.track.spilled(entry)

    def fall_asleep(self) -> int:
        """Let all of it go out of memory: a store has it. What becomes of it is no business of this object any more.

        Returns: how many events of it are held.
        """
        held = self._leave_memory()
        self._books.asleep += held
        return held

    def move(self) -> None:
        """As `fall_asleep`, whatever of it a store has: the log is another process's. Who waits for an event of it is
        told so."""
        for entry in self.entries.values():
            if entry.confirmed_at is None:
                entry.reason = MOVED
            if entry.waiters is not None:
                self._books.resolved.append(entry)
        if self.rest is not None:
            self.rest.move()
        if self.track is not None:
            self._books.landed(*self.track.abandon())
        self._books.move(self._leave_memory())

    def _leave_memory(self) -> int:
        """Count all of it out; returns how many events of it are held."""
        books = self._books
        held = sum(entry.weight for entry in self.entries.values() if not entry.settled)
        if self.rest is not None:
            held += self.rest.events
            books.spilled -= self.rest.events
            books.rests.pop(self, None)
        books.events -= len(self.entries)
        books.bytes -= self.bytes
        books.firm_events -= self.firm_events
        books.firm_bytes -= self.firm_bytes
        books.history -= self.history
        for entry in self.entries.values():
            entry.line = GONE
            entry.tail, entry.payload = b"", None
        self.closed = True
        return held

    def take_back(self, entry: Entry) -> None:
        """Put an entry back that a store has kept; `restore` does, for all of a log, in order."""
        self._books.accepted += entry.weight
        self._books.held += entry.weight
        self.put_back(entry)

    def put_rest_back(self, first: int, events: int, lesser: int, due: float, keys: dict[str, int]) -> None:
        """A store has kept so many events behind what was taken back, from `first` on; see `Rest`."""
        if events > 0:
            self.rest = Rest(self, self._books, first)
            self.rest.restore(events, lesser, due, keys)

    def put_back(self, entry: Entry) -> None:
        """Have `entry`, which is held and behind all others, here again."""
        self.entries[entry.first] = entry
        self.bytes += entry.size
        if entry.retention == FIRM:
            self.firm_events += 1
            self.firm_bytes += entry.size
        self._books.put_back(entry)
        entry.line, entry.user = entry.retention, self.user
        if entry.tracked and entry.confirmed_at is None:
            self.unconfirmed += 1
        if entry.owned_id:
            self._remembered.add(entry)
        self.next_expiry = min(self.next_expiry, entry.expires_at)
        self.last_event_at = max(self.last_event_at, entry.accepted_at)

    def landed(self, events: int, size: int) -> None:
        """So many events of the rest are in the store, which were on their way there."""
        self._books.landed(events, size)
        if self.rest is not None:
            self._books.rests[self] = None

    def settle_again(self) -> None:
        """See anew what has settled and what is superseded, once log and sessions were put back."""
        confirmed = [entry for entry in self.entries.values() if entry.confirmed_at is not None]
        if settled := [entry for entry in confirmed if not self._owed(entry)]:
            self._settle(settled)
        for entry in list(self.entries.values()):
            self.supersede(entry)

    def line_up_again(self, first: int) -> None:
        """What is at `first` and above comes only now, though its seqs were given before."""
        self._retention.line_up_again(first)

    def remember(self, entry: Entry) -> None:
        """Know the idempotency key of `entry`, which has left the log."""
        self._remembered.add(entry)

    def supersede(self, entry: Entry) -> None:
        """Let `entry`, about to be appended, take the place of the held one of its type and key, if it has a key.

        That holds for every session that was not sent the old one yet. It comes before room is made: what is
        superseded goes first.
        """
        if entry.key is None or entry.merge or entry.critical:
            return
        name = (entry.type, entry.key)
        old = self._keys.get(name)
        self._keys[name] = entry
        if old is None or old.settled:
            return
        old.successor = entry.first or self.head + 1
        if old.first > self.sent_high:
            self._drop(old, SUPERSEDED)
        else:
            old.superseded, old.bare = True, False
            self._retention.supersede(old)
            self.disown(old.first)

    # -- what sessions processed

    def acked(self, session: Session, low: int, high: int, now: float) -> list[Entry]:
        """Note that `session` processed all that it was sent of the seqs above `low`, up to `high`.

        Returns: the tracked entries that it confirmed, for the confirmation figures.
        """
        self._books.now = now
        confirmed: list[Entry] = []
        settled: list[Entry] = []
        alone = len(self.sessions) == 1
        skipped = session.skipped
        # As `within`, written out: half of what an ack costs is this loop.
        entries, seq = self.entries, low + 1
        while seq <= high:
            entry = entries.get(seq)
            if entry is None:
                seq = self.gone.end_of(seq) + 1
                continue
            seq = entry.seq + 1
            if skipped and entry.first in skipped:
                continue
            if entry.confirmed_at is None:
                entry.confirmed_at = now
                if entry.tracked:
                    self.unconfirmed -= 1
                    confirmed.append(entry)
                if entry.waiters is not None:
                    self._books.resolved.append(entry)
            if not entry.settled and (alone or not self._owed(entry)):
                settled.append(entry)
        if settled:
            self._settle(settled)
        if skipped:
            session.skipped = {first for first in skipped if first > high}
        if self.track is not None:
            self.track.acked(low, high)
        self.relief_dry = False
        if self.rest is not None:
            self._books.rests[self] = None
        return confirmed

    def within(self, low: int, high: int) -> Iterator[Entry]:
        """The entries in the seqs above `low`, up to `high`; neither is amid joined deltas."""
        entries, seq = self.entries, low + 1
        while seq <= high:
            entry = entries.get(seq)
            if entry is None:
                seq = self.gone.end_of(seq) + 1
            else:
                seq = entry.seq + 1
                yield entry

    def _owed(self, entry: Entry) -> bool:
        """Whether some session is still to process `entry`."""
        return any(session.owes(entry) for session in self.sessions.values())

    def _settle(self, entries: list[Entry]) -> None:
        """What is confirmed and owed to nobody is history from now on: `entries`, at least one, in order."""
        weight, now = 0, self._books.now
        for entry in entries:
            if entry.retention == FIRM:
                self._soften(entry)
            entry.settled = True
            entry.settled_at = now
            entry.line = CLASS_SETTLED
            weight += entry.seq - entry.first + 1
        # Time and seqs rise together: of these the first is the oldest.
        self.next_expiry = min(self.next_expiry, entries[0].accepted_at + self._history_ttl)
        self._retention.settle(entries)
        self._history.extend(entries)
        self.history += len(entries)
        self._books.settle(len(entries), weight)

    def _soften(self, entry: Entry) -> None:
        """A critical entry ceases to be firm."""
        self.firm_events -= 1
        self.firm_bytes -= entry.size
        self._books.soften(entry)

    def release(self, session: Session) -> None:
        """`session` ended or expired: nothing is owed to it any more. What nobody confirmed stays held."""
        self.sessions.pop(session.id, None)
        if self.track is not None:
            self.track.moved(session)
        self.calm = max(self.calm, session.acked)
        for entry in list(self.entries.values()):
            if not entry.settled and (entry.seq > session.acked or session.skipped):
                self.disown(entry.first)

    def disown(self, first: int) -> None:
        """A session that had the entry at `first` to process has it no more: see whether that was the last.

        What was confirmed is settled then; what is superseded goes.
        """
        self.may_relieve()
        entry = self.entries.get(first)
        if entry is None or entry.settled or self._owed(entry):
            return
        if entry.confirmed_at is not None:
            self._settle([entry])
        elif entry.superseded:
            self._drop(entry, SUPERSEDED)

    # -- where a session may start

    @property
    def safe(self) -> int:
        """What is up to here can't be given to another event, and may be told of: the head, but for what is to be made
        durable first. Sessions may be given less of it (`ready`), where part of it is in a store only."""
        return self.head if self.track is None else self.track.safe

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
        end = self.head if self.rest is None else self.rest.first - 1
        while seq < end and seq + 1 not in self.entries and self.gone.at(seq + 1) is None:
            seq -= 1
        return seq

    # -- what goes

    def make_room(self) -> bool:
        """Let the unsettled entry go that can be spared best: the oldest of the lowest class. O(1) amortised.

        Before anything is evicted, neighbouring deltas that nobody was sent yet are joined.

        Returns: False where all that is left is firm, or history.
        """
        retention, books = self._retention, self._books
        superseded = retention.oldest(CLASS_SUPERSEDED)
        if superseded is not None:
            self._drop(superseded, SUPERSEDED)
            return True
        run = self.deltas.next_run(self.sent_high)
        if run is not None:
            self._join(run)
        else:
            entry = (
                retention.oldest(CLASS_LOW) or retention.oldest(CLASS_NORMAL) or retention.oldest(CLASS_HIGH)
            )
            if entry is None:
                return False
            self._drop(entry, EVICTED)
        books.overflows += 1
        if self.firm_events:
            books.critical_preserved += 1
        return True

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
            if not self._is_waited_for(entry):
                self._settle([entry])
                return True
        self.relief_dry = True
        return False

    def _is_waited_for(self, entry: Entry) -> bool:
        """Whether a session that is neither parked nor stalled is still to process `entry`."""
        return any(s.owes(entry) and not s.dormant for s in self.sessions.values())

    def staying(self) -> tuple[list[Entry], list[Entry]]:
        """What can't go to make room for the rest: what a session that is neither parked nor stalled is still to
        process; and what nobody has confirmed, and waits for a session that is not here."""
        waited_for: list[Entry] = []
        pending: list[Entry] = []
        for entry in self.entries.values():
            if entry.settled:
                continue
            if self._is_waited_for(entry):
                waited_for.append(entry)
            elif entry.confirmed_at is None:
                pending.append(entry)
        return waited_for, pending

    def step_aside(self) -> bool:
        """Let the oldest entry go that is not `staying`; returns False where there is none."""
        if self.history:
            self.forget_oldest()
            return True
        for entry in self.entries.values():
            if entry.confirmed_at is not None and not self._is_waited_for(entry):
                self._settle([entry])
                self.forget(entry)
                return True
        return False

    def may_relieve(self) -> None:
        """A session has changed in a way that may let `relieve` find something."""
        self.relief_dry = False
        if self.rest is not None:
            self._books.rests[self] = None

    def forget_oldest(self) -> None:
        """Let the oldest of the history go; there must be one."""
        entry = self._retention.oldest(CLASS_SETTLED)
        assert entry is not None
        self.forget(entry)

    def forget(self, entry: Entry) -> None:
        """Let the settled `entry` go out of the history."""
        self.history -= 1
        self._books.history -= 1
        self._remove(entry, SETTLED)

    def _drop(self, entry: Entry, reason: str) -> None:
        """Let the unsettled `entry` go for `reason`."""
        if entry.retention == FIRM:
            self._soften(entry)
        if entry.tracked and entry.confirmed_at is None:
            self.unconfirmed -= 1
        self._books.lose(entry, reason)
        self._remove(entry, reason)

    def _remove(self, entry: Entry, reason: str) -> None:
        books, size = self._books, entry.size
        del self.entries[entry.first]
        entry.line = GONE
        self.bytes -= size
        books.events -= 1
        books.bytes -= size
        if entry.merge:
            self.deltas.removed(entry)
        if entry.key is not None and self._keys.get((entry.type, entry.key)) is entry:
            del self._keys[entry.type, entry.key]
        self.depart(entry, reason)
        if self.rest is not None:
            books.rests[self] = None

    def depart(self, entry: Entry, reason: str) -> None:
        """`entry` is held no more; have that noted, for all who ask."""
        # What still names the entry (an id, a receipt) must not keep its bytes.
        entry.tail, entry.payload = b"", None
        self._bury(entry)
        lost = reason != SETTLED and entry.retention == FIRM
        if self.track is not None:
            self.track.removed(entry)
        agent = entry.run if entry.run is not None and entry.type in FOLDED else None
        if self.gone.add(entry.first, entry.seq, entry.type, reason, lost, agent):
            cursors = {position for s in self.sessions.values() for position in (s.acked, s.cursor)}
            self.gone.compact(cursors | {self.calm})

    def _join(self, run: list[Entry]) -> None:
        """Put one entry in the place of the deltas of `run`."""
        size, events = sum(delta.size for delta in run), len(run)
        entry = joined(run)
        for delta in run[1:]:
            del self.entries[delta.first]
        for delta in run:
            self._bury(delta)
        self.entries[entry.first] = entry
        self.bytes += entry.size - size
        self._books.bytes += entry.size - size
        self._books.events -= events - 1
        self._books.merged += events - 1
        if entry.owned_id:
            self._remembered.joined(entry)
        if self.track is not None:
            self.track.joined(run, entry)
        if self._last is run[-1]:
            self._last = entry

    def open_journal(self) -> Journal:
        """The journal; a new one where there is none yet."""
        if self.journal is None:
            self.journal = Journal(self._journals)
        return self.journal

    def _bury(self, entry: Entry) -> None:
        """Keep what has left the log for those who ask what became of it."""
        entry.gone_at = self._books.now
        journal = self.journal
        if journal is None:
            journal = self.open_journal()
        journal.bury(entry)

    def on_timer(self, now: float) -> float:
        """As `sweep`; returns when to look again. For events whose own time to live is not to wait for the cleanup."""
        if self.closed:
            return math.inf
        self.sweep(now)
        due = self.next_expiry
        return due if self.rest is None or self.rest.due <= now else min(due, self.rest.due)

    def sweep(self, now: float) -> None:
        """Let go what has expired by `now`: unconfirmed events past their time, and history older than its TTL."""
        if self.rest is not None and self.rest.due <= now:
            self._books.rests[self] = None
        if now < self.next_expiry:
            return
        self._books.now = now
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
            self._settle([entry])
            self.forget(entry)
            return
        if entry.critical:
            self._books.dead_letters += 1
            self._books.dead.append((self, entry, entry.tail))
        self._drop(entry, EXPIRED)
