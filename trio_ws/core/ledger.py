"""The ledger: which logs have changed and are not durable yet, and what may be shown to clients before it is.

Where a hub has a store, each mailbox has a `Track` (track.py). It notes what a step has changed; `Ledger.draw_up` makes
records of it for one commit, and `Ledger.committed` is told when that is durable. Until then two things hold:

- Nothing durable is shown before it is committed: sessions take what is at or below `Mailbox.ready`, which ends before
  the first event that must not be lost and is not committed.
- (epoch, seq) names one event for ever, also one that is lost in a crash. Events that may be lost are shown at once, at
  seqs that were reserved: the store knows an upper bound, and the next process goes on above it. The bound is drawn in
  again once a log has had no such event for a while (`TIGHTEN_AFTER`), so a log at rest leaves no hole.

Without a store there is no ledger, and it costs nothing but a look at `Mailbox.track`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from .entry import FIRM
from .records import Batch

if TYPE_CHECKING:
    from .mailbox import Mailbox

LATER: Final = 0
"""What has changed says where sessions are, and what they have processed: it may wait for an event to go along with."""
SOON: Final = 1
"""An event may be lost, or a seq can't be shown, until it is written."""
NOW: Final = 2
"""Somebody waits until it is durable."""

TIGHTEN_AFTER: Final = 1.0
"""Seconds without an event that may be lost after which no seqs are reserved any more."""


class Ledger:
    """What of all mailboxes is not durable yet.

    Args:
      durability: which events are durable before they are shown and their publishers told: ``all``; ``critical`` ones,
        the others are written with them; or critical ones, and others are not written at all (``none``).
      session_ttl, event_ttl: seconds for which a parked session is kept, and what has settled.
      on_work: is called when there is something to draw up, with how urgent it is, and again when it becomes more so.
    """

    __slots__ = (
        "_closed",
        "_dirty",
        "_drawn",
        "_loose",
        "_on_work",
        "_urgency",
        "all_durable",
        "event_ttl",
        "others_written",
        "session_ttl",
    )

    def __init__(
        self, durability: str, session_ttl: float, event_ttl: float, on_work: Callable[[int], None]
    ) -> None:
        self.all_durable = durability == "all"
        self.others_written = durability != "none"
        self.session_ttl, self.event_ttl = session_ttl, event_ttl
        self._on_work = on_work
        self._dirty: dict[Mailbox, None] = {}
        self._closed: dict[str, None] = {}
        self._drawn: list[Mailbox] = []
        self._loose: dict[Mailbox, float] = {}
        self._urgency = -1

    def __len__(self) -> int:
        """How many mailboxes have something that was not drawn up yet."""
        return len(self._dirty) + len(self._closed)

    def is_durable(self, retention: int) -> bool:
        """Whether an event of this class is committed before anybody is told that it was accepted."""
        return self.all_durable or retention == FIRM

    def touch(self, box: Mailbox, urgency: int = LATER) -> None:
        """Note that something of `box` has changed, and how urgent it is to write that."""
        self._dirty[box] = None
        self._hasten(urgency)

    def _hasten(self, urgency: int) -> None:
        if urgency > self._urgency:
            self._urgency = urgency
            self._on_work(urgency)

    def close(self, box: Mailbox) -> None:
        """Nothing of `box` is kept any more."""
        self._dirty.pop(box, None)
        self._loose.pop(box, None)
        if box.track is not None and box.track.written:
            self._closed[box.user] = None
            self._hasten(LATER)

    def let_sleep(self, box: Mailbox) -> None:
        """`box`, which is idle, leaves memory: whatever is written of its user from now on, is so by another object."""
        self._loose.pop(box, None)

    def abandon(self, box: Mailbox) -> None:
        """`box` is another process's: nothing more of it is written from here."""
        self._dirty.pop(box, None)
        self._loose.pop(box, None)

    def reopen(self, user: str) -> None:
        """What was kept of `user` is another process's by now: it is not for this one to have it forgotten."""
        self._closed.pop(user, None)

    def is_closing(self, user: str) -> bool:
        """Whether it is yet to be written that nothing is kept of `user`."""
        return user in self._closed

    def loosen(self, box: Mailbox, now: float) -> None:
        """Note that `box` has seqs reserved, for an event that came last now."""
        self._loose.pop(box, None)
        self._loose[box] = now

    def tighten(self, now: float) -> float:
        """Have no seqs reserved any more in logs that had no event for a while that may be lost.

        Returns: the time by which that is to be done next; infinity where there are no such logs.
        """
        while self._loose:
            box, at = next(iter(self._loose.items()))
            if at + TIGHTEN_AFTER > now:
                return at + TIGHTEN_AFTER
            del self._loose[box]
            assert box.track is not None
            box.track.tighten()
        return math.inf

    def draw_up(self, most: int, size: int, now: float, wall_offset: float) -> Batch | None:
        """What is to be committed next; None where nothing is. There is at most one batch at a time.

        Args:
          most: how many events, and of how many mailboxes.
          size: of how many bytes; the event that reaches that is the last.
          now: on the hub's clock.
          wall_offset: what is to be added to that clock for the time of day.
        """
        assert not self._drawn, "a batch is under way"
        self._urgency = -1  # also where what was urgent has left meanwhile: what comes next is told of again
        if not self._dirty and not self._closed:
            return None
        batch = Batch(closed=list(self._closed))
        self._closed.clear()
        dirty, self._dirty = self._dirty, {}
        for box in dirty:
            assert box.track is not None
            if box.closed:
                continue  # whatever was done to it since it left memory
            if len(batch.events) >= most or len(self._drawn) >= most or size <= 0:
                self.touch(box, NOW if box.track.awaited else SOON)
            else:
                self._drawn.append(box)
                before = len(batch.events)
                if not box.track.draw_up(batch, most - before, size, now, wall_offset):
                    self.touch(box, NOW if box.track.awaited else SOON)
                for event in batch.events[before:]:
                    size -= len(event.payload)
        return batch

    def committed(self, refused: Collection[str] = ()) -> list[Mailbox]:
        """The batch that was drawn up is durable; of the users who are `refused`, nothing of it is.

        Returns: the mailboxes that have more to show now.
        """
        drawn, self._drawn = self._drawn, []
        ready = []
        for box in drawn:
            assert box.track is not None
            if box.user in refused:
                box.track.refused()
            elif box.track.committed_now():
                ready.append(box)
        return ready
