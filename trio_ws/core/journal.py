"""The journal of one user's log: who was sent what and when, and what came back. One line a run of seqs, not an event.

A line is written when a session is sent something, acks, nacks, or is told of a gap. What can be read off an event
itself (when it was accepted, confirmed, settled, and when it went) stands in its `Entry`, and entries that have left
the log are kept here for a while. `core/story.py` puts the two together when somebody asks.

All of it is bounded, a user (`MAX_LINES`, `MAX_PAST`) and in all (`Journals`), and a user to whom nothing was ever sent
has no journal.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from .entry import Entry

SENT: Final = "sent"
REDELIVERED: Final = "redelivered"
MERGED: Final = "merged"
ACKED: Final = "acked"
NACKED: Final = "nacked"
TOLD: Final = "gap"

MAX_LINES: Final = 512
"""How many lines one journal has."""

MAX_PAST: Final = 256
"""How many entries that have left the log one journal keeps."""

MIN_IN_ALL: Final = 10_000
"""How many lines and entries all journals of a hub may have together, however small its buffer is."""

PER_EVENT: Final = 4
"""And how many, for each event that its buffer may hold."""


class Line(msgspec.Struct, gc=False, eq=False):
    """One line. The garbage collector does not know of lines either; see `Entry`.

    Attributes:
      at: when, on the hub's clock.
      step: one of the words above.
      session: whose it is.
      first, last: the seqs that it is about, both inclusive.
      retry: of a redelivery, the how manieth on the schedule it was; 0 where it was none.
      reason: of a gap.
    """

    at: float
    step: str
    session: str
    first: int
    last: int
    retry: int = 0
    reason: str | None = None


class Journals:
    """All journals of a hub, within one bound: where it is full, they give up their older half, one after the other.

    Args:
      limit: how many lines and entries they may have together.

    Attributes:
      count: how many they have.
    """

    __slots__ = ("_turns", "count", "limit")

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.limit = limit
        self._turns: dict[Journal, None] = {}

    def look_after(self, journal: Journal) -> None:
        """`journal` has its first line or entry, or there are too many in all."""
        self._turns[journal] = None
        while self.count > self.limit:
            first = next(iter(self._turns))
            del self._turns[first]
            self.count -= first.halve()
            if len(first):
                self._turns[first] = None

    def close(self, journal: Journal) -> None:
        """Nobody will ask for `journal` any more."""
        if journal in self._turns:
            del self._turns[journal]
            self.count -= len(journal)


class Journal:
    """The journal of one log.

    Args:
      journals: the bound over all.

    Attributes:
      lines: the newest last.
      past: entries that have left the log, or were joined into another; the one that went last is last.
    """

    __slots__ = ("_journals", "lines", "past")

    def __init__(self, journals: Journals) -> None:
        self.lines: deque[Line] = deque()
        self.past: deque[Entry] = deque()
        self._journals = journals

    def __len__(self) -> int:
        return len(self.lines) + len(self.past)

    def note(self, line: Line) -> None:
        """Write `line`; the oldest makes way for it where there are `MAX_LINES`."""
        lines = self.lines
        lines.append(line)
        length = len(lines)
        if length > MAX_LINES:
            lines.popleft()
            return
        journals = self._journals
        journals.count += 1
        if length == 1 or journals.count > journals.limit:
            journals.look_after(self)

    def bury(self, entry: Entry) -> None:
        """Keep `entry`, which has left the log; the oldest makes way for it where there are `MAX_PAST`."""
        past = self.past
        past.append(entry)
        length = len(past)
        if length > MAX_PAST:
            past.popleft()
            return
        journals = self._journals
        journals.count += 1
        if length == 1 or journals.count > journals.limit:
            journals.look_after(self)

    def halve(self) -> int:
        """Give up the older half; returns how much that was."""
        before = len(self)
        for _ in range(len(self.lines) - len(self.lines) // 2):
            self.lines.popleft()
        for _ in range(len(self.past) - len(self.past) // 2):
            self.past.popleft()
        return before - len(self)
