"""The rest of a log: what came while memory had no room for it, and lies in the store only, behind all that is here.

    entries                     rest
    1 … first - 1               first … head
    here, as in any log         in the store only: held, owed to all sessions, shown to none

While a log has a rest, whatever comes is put behind it, so the order stays the order of acceptance. As room comes, the
rest is read back at its front (`Mailbox.take_in`). What is kept here of an event is its publisher's own key, if it has
one; all else is in the store.

What was read back is shown once the store knows that the rest begins behind it (`Track`). So where a log is read again
after a crash, all that any client was ever shown is here, and the rest is behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .entry import FIRM, SPILLED, Entry


class Rest:
    """What of one log is in the store only.

    Args:
      first: the lowest seq that may be in it.

    Attributes:
      events: how many events are in it; `lesser` of them are not critical.
      due: when something of it may expire first, on the hub's clock.
      wanted: how many bytes the first of it is known to take; 0 where that is not known.
    """

    __slots__ = ("_keys", "_waiters", "due", "events", "first", "lesser", "wanted")

    def __init__(self, first: int) -> None:
        self.first = first
        self.events = self.lesser = self.wanted = 0
        self.due = math.inf
        self._keys: dict[str, int] = {}
        self._waiters: dict[int, list[Callable[[], None]]] = {}

    def put(self, entry: Entry) -> None:
        """`entry` is the newest of it."""
        self.events += 1
        self.lesser += entry.retention != FIRM
        self.due = min(self.due, entry.expires_at)
        if entry.owned_id:
            self._keys[entry.id] = entry.seq

    def restored(self, events: int, lesser: int, due: float, keys: dict[str, int]) -> None:
        """It is what a store has kept."""
        self.events, self.lesser, self.due, self._keys = events, min(lesser, events), due, keys

    def leave(self, entry: Entry) -> None:
        """`entry`, made of what the store has of one event, is no part of it any more; who waits for it goes along."""
        self.missed(1)
        if entry.retention != FIRM and self.lesser:
            self.lesser -= 1
        if entry.owned_id:
            self._keys.pop(entry.id, None)
        entry.waiters = self._waiters.pop(entry.first, None)

    def missed(self, events: int) -> None:
        """So many events that were in it are in it no more."""
        self.events -= events
        self.lesser = min(self.lesser, self.events)

    # -- for those who ask for one of it

    def find(self, id: str) -> Entry | None:
        """What is known of the event that was published under the idempotency key `id`."""
        seq = self._keys.get(id)
        if seq is None:
            return None
        return self._entry(id, seq)

    def lose(self, seq: int) -> Entry:
        """What is known of the event at `seq`, which is not in the store; who waits for it goes along."""
        self.missed(1)
        entry = self._entry("", seq)
        entry.waiters = self._waiters.pop(seq, None)
        return entry

    def _entry(self, id: str, seq: int) -> Entry:
        # Whether it is critical is not known here. Who publishes it again waits until it is durable, so it is.
        entry = Entry(
            id=id,
            type="",
            tail=b"",
            size=0,
            bare=False,
            retention=FIRM,
            tracked=False,
            ts=0.0,
            accepted_at=0.0,
            owned_id=True,
        )
        entry.first = entry.seq = seq
        entry.line = SPILLED
        return entry

    def waiters(self, seq: int) -> list[Callable[[], None]]:
        """Who waits for the event at `seq`; as `Entry.waiters`."""
        return self._waiters.setdefault(seq, [])

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for some of it."""
        return any(self._waiters.values())
