"""The order in which the entries of one log go when room is needed: by class, and oldest first within a class.

Settled entries come first, in the order in which they settled; then superseded ones; then LOW, NORMAL and HIGH. A
critical entry that is not settled is firm: it is in none of the lines.

Most entries leave a class without ever being asked for. So the lines of LOW, NORMAL and HIGH are drawn up when somebody
asks, of what came in since the last time; and no line is told who has left it: that is seen when it comes to the front,
and swept out when as much has left as is still there. Each operation is O(1) amortised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .entry import CLASS_SETTLED, CLASS_SUPERSEDED, FIRM, Entry

if TYPE_CHECKING:
    from .mailbox import Mailbox

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
        return (entry for entry in map(_heir, self._line) if entry.line == self._cls)

    def append(self, entry: Entry) -> None:
        """Line `entry` up as the newest."""
        line = self._line
        line.append(entry)
        if len(line) > self._full:
            self._sweep()

    def extend(self, entries: Iterable[Entry]) -> None:
        """Line `entries` up as the newest."""
        line = self._line
        line.extend(entries)
        if len(line) > self._full:
            self._sweep()

    def _sweep(self) -> None:
        """Put out of mind those that have left."""
        cls = self._cls
        self._line = deque([e for e in self._line if e.line == cls or (e.into and _heir(e).line == cls)])
        self._full = 2 * len(self._line) + _SMALL

    def first(self) -> Entry | None:
        """The one that goes first; None where there is none."""
        line, cls = self._line, self._cls
        while line:
            entry = line[0]
            if entry.into is not None:
                entry = _heir(entry)
            if entry.line == cls:
                return entry
            line.popleft()
        return None


class Retention:
    """The lines of one log, by class; an entry stands where its state puts it (`Entry.line`).

    Args:
      log: whose lines they are; read, never written.
    """

    __slots__ = ("_drawn", "_lines", "_log")

    def __init__(self, log: Mailbox) -> None:
        self._log = log
        self._lines: dict[int, Line] = {}
        self._drawn = 0

    def supersede(self, entry: Entry) -> None:
        """`entry` is superseded from now on, and the newest of those."""
        entry.line = CLASS_SUPERSEDED
        self._line(CLASS_SUPERSEDED).append(entry)

    def settle(self, entries: list[Entry]) -> None:
        """`entries` have settled, in this order; their `line` says so already."""
        self._line(CLASS_SETTLED).extend(entries)

    def oldest(self, cls: int) -> Entry | None:
        """The entry of class `cls` that goes first; None where there is none."""
        if cls > CLASS_SUPERSEDED and self._drawn < self._log.head:
            self._draw_up()
        line = self._lines.get(cls)
        return None if line is None else line.first()

    def line_up_again(self, first: int) -> None:
        """What is at `first` and above comes into the log only now, though its seqs were given before."""
        self._drawn = min(self._drawn, first - 1)

    def all(self, cls: int) -> list[Entry]:
        """All entries of class `cls`, the one that goes first at the front."""
        self._draw_up()
        return list(self._lines.get(cls, ()))

    def _draw_up(self) -> None:
        """Line up what came in since the last time."""
        # As `Mailbox.within`, written out: where each event makes room for itself, this is done for each of them.
        log, lines = self._log, self._lines
        entries, seq, head = log.entries, self._drawn + 1, log.head
        while seq <= head:
            entry = entries.get(seq)
            if entry is None:
                seq = log.gone.end_of(seq) + 1
                continue
            seq = entry.seq + 1
            cls = entry.line
            if CLASS_SUPERSEDED < cls < FIRM:
                line = lines.get(cls)
                if line is None:
                    line = lines[cls] = Line(cls)
                line.append(entry)
        self._drawn = head

    def _line(self, cls: int) -> Line:
        line = self._lines.get(cls)
        if line is None:
            line = self._lines[cls] = Line(cls)
        return line


def _heir(entry: Entry) -> Entry:
    """What stands in the place of `entry` by now: what deltas are joined into, where the first of them stood."""
    while entry.into is not None and entry.into.first == entry.first:
        entry = entry.into
    return entry
