"""What is in flight on one connection, written and not acked, and when it is to be sent again.

Two things are sent again: what the client's handler failed on (`nacked`), and the oldest tracked event that is
unacked, on the schedule of `retry_intervals`. A connection that acks nothing through the whole schedule is given up.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from .entry import Entry

PATIENCE: Final = 5.0
"""Seconds that a connection has left after the last try of the redelivery schedule."""


class Flight:
    """The flight of one connection; a new one begins with an empty one.

    Args:
      entries: the log, by first seq; what has left it is not sent again.
      intervals: seconds after its first writing at which the oldest tracked event is sent again, rising.
      now: when the connection came.

    Attributes:
      progress_at: when the client last answered for something, or what is in flight now was begun.
      firsts: for events that stand for several deltas, by their seq: the first seq that they stand for.
    """

    __slots__ = (
        "_attempts",
        "_attempts_of",
        "_entries",
        "_head_since",
        "_intervals",
        "_last_try",
        "_nacked",
        "_tries",
        "_unacked",
        "firsts",
        "progress_at",
    )

    def __init__(self, entries: Mapping[int, Entry], intervals: tuple[float, ...], now: float) -> None:
        self.progress_at = self._head_since = now
        self.firsts: dict[int, int] = {}
        self._entries = entries
        self._intervals = intervals
        self._unacked: deque[tuple[int, float]] | None = None  # 760 bytes that most connections never need
        self._nacked: dict[int, float] = {}
        self._tries: dict[int, int] = {}
        self._attempts = self._attempts_of = 0
        self._last_try = -math.inf

    def wrote(self, entry: Entry, now: float) -> None:
        """The tracked `entry` was written."""
        self._prune(now)
        if self._unacked is None:
            self._unacked = deque()
        self._unacked.append((entry.seq, now))

    def acked(self, seq: int, now: float) -> None:
        """Everything up to `seq` has come back."""
        self.progress_at = self._head_since = now
        unacked = self._unacked
        # What has left the log must not stand before what is due.
        while unacked and (unacked[0][0] <= seq or unacked[0][0] not in self._entries):
            unacked.popleft()
        if self.firsts:
            self.firsts = {last: first for last, first in self.firsts.items() if last > seq}
        if self._tries or self._nacked:
            self._tries = {n: tries for n, tries in self._tries.items() if n > seq}
            self._nacked = {n: due for n, due in self._nacked.items() if n > seq}

    def nacked(self, seq: int, now: float) -> None:
        """The client failed on `seq`: it is due at once the first time, then after a retry interval."""
        tries = self._tries.get(seq, 0)
        delay = 0.0 if tries == 0 else self._intervals[min(tries, len(self._intervals)) - 1]
        self._nacked[seq] = now + delay
        self.progress_at = now

    def due(self, now: float) -> list[int]:
        """The seqs that are to be sent again now, each once; the caller does, and says so by `again`."""
        self._prune(now)
        due = [seq for seq, at in self._nacked.items() if at <= now]
        for seq in due:
            del self._nacked[seq]
        if now >= self._retry_at():
            assert self._unacked
            seq, written = self._unacked[0]
            self._attempts = max(self._passed(now - written), self._attempts + 1)
            if seq not in due:
                due.append(seq)
        return due

    def again(self, seq: int, now: float) -> int:
        """Note that `seq` is sent again; returns for the how manieth time."""
        self._last_try = now
        self._tries[seq] = tries = self._tries.get(seq, 0) + 1
        return tries

    def deadline(self) -> float:
        """When `due` or `exhausted` has something to say next; infinity where nothing is unacked."""
        if not self._unacked and not self._nacked:
            return math.inf
        due = min(self._retry_at(), self._give_up_at())
        return min(due, *self._nacked.values()) if self._nacked else due

    def exhausted(self, now: float) -> bool:
        """Whether nothing was acked through the whole schedule, and `PATIENCE` beyond."""
        self._prune(now)
        return self._give_up_at() <= now

    def _prune(self, now: float) -> None:
        """Forget the oldest as far as they have left the log."""
        unacked = self._unacked
        while unacked and unacked[0][0] not in self._entries:
            unacked.popleft()
            self._head_since = now

    def _passed(self, age: float) -> int:
        """How many tries are due by the time that an event has been unacked for `age` seconds."""
        return sum(interval <= age for interval in self._intervals)

    def _retry_at(self) -> float:
        """When the oldest unacked tracked event is due again; infinity where none is, or its tries are used up."""
        if not self._unacked:
            return math.inf
        seq, written = self._unacked[0]
        if self._attempts_of != seq:
            # What came due while an older one was the oldest is passed over, not made up for.
            self._attempts_of = seq
            self._attempts = self._passed(self._head_since - written)
        if self._attempts >= len(self._intervals):
            return math.inf
        return written + self._intervals[self._attempts]

    def _give_up_at(self) -> float:
        """When a connection that acks nothing is to be closed; infinity while there are tries left.

        Who acks now and then is slow, not gone: the schedule's length counts from the last sign of progress.
        """
        if self._retry_at() != math.inf or not self._unacked:
            return math.inf
        written = self._unacked[0][1]
        begun = max(written, self.progress_at)
        return max(begun + self._intervals[-1], self._last_try) + PATIENCE
