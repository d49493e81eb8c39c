"""The order in which the entries of one log go when room is needed: by class, and oldest first within a class.

Settled entries come first, in the order in which they settled; then superseded ones; then LOW, NORMAL and HIGH. A
critical entry that is not settled is firm: it is in none of the lines.

Most entries leave a class without ever being asked for. So a line is not told: who has left it is passed over when it
comes to the front, and swept out when as much of the line has left as is still there. Each operation is O(1) amortised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from .entry import CLASS_SETTLED, FIRM, Entry

_SMALL = 64


class Line:
    """The entries of one class (`Entry.line`) in the order in which they came into it."""

    __slots__ = ("_cls", "_full", "_line")

    def __init__(self, cls: int) -> None:
        self._cls = cls
        self._line: deque[Entry] = deque()
        self._full = _SMALL

    def __len__(self) -> int:
        """How many it keeps in mind: at most about twice as many as there are."""
        return len(self._line)

    def __iter__(self) -> Iterator[Entry]:
        """Those that are in it, in order."""
        return iter(dict.fromkeys(e for e in map(_now, self._line) if e.line == self._cls))

    def add(self, entries: Sequence[Entry]) -> None:
        """Line `entries` up as the newest."""
        self._line.extend(entries)
        if len(self._line) > self._full:
            self._line = deque(self)
            self._full = 2 * len(self._line) + _SMALL

    def first(self) -> Entry | None:
        """The one that goes first; None where there is none."""
        line, cls = self._line, self._cls
        while line:
            entry = line[0]
            if entry.line == cls:
                return entry
            if entry.into is not None and _now(entry).line == cls:
                line[0] = _now(entry)
            else:
                line.popleft()
        return None


class Retention:
    """The lines of one log, by class; an entry stands where its state puts it (`Entry.line`)."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}

    def put(self, entry: Entry, cls: int) -> None:
        """Line `entry` up as the newest of class `cls`, and out of that which it was in."""
        entry.line = cls
        if cls != FIRM:
            self.line(cls).add((entry,))

    def settled(self, entries: Sequence[Entry]) -> None:
        """Line up entries that have settled, in this order; their `line` says so already."""
        self.line(CLASS_SETTLED).add(entries)

    def line(self, cls: int) -> Line:
        """The line of one of `CLASSES`."""
        line = self._lines.get(cls)
        if line is None:
            line = self._lines[cls] = Line(cls)
        return line

    def oldest(self, cls: int) -> Entry | None:
        """The entry of class `cls` that goes first; None where there is none."""
        line = self._lines.get(cls)
        return None if line is None else line.first()


def _now(entry: Entry) -> Entry:
    """The entry that `entry` is part of by now: deltas that were joined stand where the first of them stood."""
    while entry.into is not None:
        entry = entry.into
    return entry
