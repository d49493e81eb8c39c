"""The rest of a log: what came while memory had no room for it, and lies in the store only, behind all that is here.

    entries                     rest
    1 … first - 1               first … head
    here, as in any log         in the store only: held, owed to all sessions, shown to none

While a log has a rest, whatever comes is put behind it, so the order stays the order of acceptance. As room comes, the
rest is read back at its front (`Rest.take_in`). What is kept here of an event is its publisher's own key, if it has
one; all else is in the store.

What was read back is shown once the store knows that the rest begins behind it (`Track`). So where a log is read again
after a crash, all that any client was ever shown is here, and the rest is behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .books import Books
from .entry import EVICTED, EXPIRED, FIRM, MOVED, RESET, SPILLED, Entry, placeholder
from .gaps import ANY_TYPE

if TYPE_CHECKING:
    from .mailbox import Mailbox


class Rest:
    """What of one log is in the store only.

    Args:
      log: whose it is.
      books: where it is counted.
      first: the lowest seq that may be in it.

    Attributes:
      events: how many events are in it; `lesser` of them are not critical.
      due: when something of it may expire first, on the hub's clock.
      wanted: how many bytes the first of it is known to take; 0 where that is not known.
    """

    __slots__ = ("_books", "_keys", "_log", "_waiters", "due", "events", "first", "lesser", "wanted")

    def __init__(self, log: Mailbox, books: Books, first: int) -> None:
        self.first = first
        self.events = self.lesser = self.wanted = 0
        self.due = math.inf
        self._log = log
        self._books = books
        self._keys: dict[str, int] = {}
        self._waiters: dict[int, list[Callable[[], None]]] = {}

    def restore(self, events: int, lesser: int, due: float, keys: dict[str, int]) -> None:
        """It is what a store has kept: so many events, and the seqs of its publishers' own keys."""
        self.events, self.lesser, self.due, self._keys = events, min(lesser, events), due, keys
        self._books.accepted += events
        self._books.held += events
        self._books.spilled += events

    def put(self, entry: Entry) -> None:
        """`entry`, which has its seq, is the newest of it."""
        entry.line = SPILLED
        self.events += 1
        self.lesser += entry.retention != FIRM
        self.due = min(self.due, entry.expires_at)
        if entry.owned_id:
            self._keys[entry.id] = entry.seq
        self._books.spill(entry)

    def take_in(self, entries: list[Entry], upto: int) -> None:
        """Read the front of it back: `entries`, in order, are all that the store has of it up to `upto`."""
        log, track = self._log, self._log.track
        assert track is not None
        at = self.first
        log.line_up_again(at)
        for entry in entries:
            self._miss(at, entry.first - 1)
            at = entry.seq + 1
            self._leave(entry)
            log.put_back(entry)
        self._miss(at, upto)
        self.first, self.wanted = upto + 1, 0
        if upto >= log.head:
            log.rest = None
        for entry in entries:
            log.supersede(entry)
        track.taken_in()

    def let_go(self, entry: Entry, reason: str, now: float) -> None:
        """Let `entry`, made of what the store has of one event, go for `reason`."""
        log, books = self._log, self._books
        books.now = now
        self._leave(entry)
        entry.user = log.user
        if entry.owned_id:
            log.remember(entry)
        if reason == EXPIRED and entry.critical:
            books.dead_letters += 1
            books.dead.append((log, entry, entry.tail))
        books.lose(entry, reason)
        log.depart(entry, reason)

    def move(self) -> None:
        """The log is another process's: who waits for some of it is told so."""
        for seq, waiters in self._waiters.items():
            entry = _known("", seq)
            entry.reason, entry.waiters = MOVED, waiters
            self._books.resolved.append(entry)
        self._waiters = {}

    def _leave(self, entry: Entry) -> None:
        """`entry`, made of what the store has of one event, is no part of it any more; who waits for it goes along."""
        if entry.retention != FIRM and self.lesser:
            self.lesser -= 1
        if entry.owned_id:
            self._keys.pop(entry.id, None)
        self._count_out(entry)

    def _miss(self, first: int, last: int) -> None:
        """What was put here at these seqs, and has not left, is not in the store: that counts as evicted."""
        log = self._log
        for seq in range(first, last + 1):
            if log.gone.at(seq) is None:
                assert log.track is not None
                entry = _known("", seq)
                self._count_out(entry)
                self._books.lose(entry, EVICTED)
                log.gone.add(seq, seq, ANY_TYPE, RESET, True)
                log.track.missed()

    def _count_out(self, entry: Entry) -> None:
        self.events -= 1
        self.lesser = min(self.lesser, self.events)
        self._books.spilled -= 1
        entry.waiters = self._waiters.pop(entry.first, None)

    # -- for those who ask for one of it

    def find(self, id: str) -> Entry | None:
        """What is known of the event that was published under the idempotency key `id`."""
        seq = self._keys.get(id)
        if seq is None:
            return None
        return _known(id, seq)

    def waiters(self, seq: int) -> list[Callable[[], None]]:
        """Who waits for the event at `seq`; as `Entry.waiters`."""
        return self._waiters.setdefault(seq, [])

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for some of it."""
        return any(self._waiters.values())


def _known(id: str, seq: int) -> Entry:
    """What is known here of an event that is in a store only."""
    # Whether it is critical is not. Who publishes it again waits until it is durable, as if it were.
    entry = placeholder(id, seq, FIRM)
    entry.line = SPILLED
    return entry
