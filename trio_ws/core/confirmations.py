"""Confirmation figures: how many tracked events were confirmed, how fast, and which timed out first.

`confirm_timeout` is one constant, so the events that were first written wait in one queue that is in deadline order by
itself: no timer, no heap entry, no task an event. What is confirmed meanwhile stays in it until it comes to the front,
or until the queue has doubled: its length stays within about twice what waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from .entry import Entry
from .histogram import Histogram

_SMALL: Final = 64


class Confirmations:
    """Deadlines and figures of the confirmations of one hub.

    Args:
      timeout: seconds after its first writing until a confirmation counts as timed out.

    Attributes:
      confirmed: in time or late, since the start; `late` of them after their timeout.
      timed_out: how many passed the timeout unconfirmed, each counted once.
      latency: seconds from the first writing to the confirmation.
      response: seconds from the acceptance to the confirmation; from the coming of the connection that confirmed it,
        where that was later: how long a user was away is no slowness of ours.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.confirmed = self.timed_out = self.late = 0
        self.latency = Histogram()
        self.response = Histogram()
        self._waiting: deque[Entry] = deque()
        self._full = _SMALL

    def written(self, entry: Entry, now: float) -> None:
        """Note the first writing of a tracked entry to any session."""
        entry.first_sent = now
        self._waiting.append(entry)
        if len(self._waiting) > self._full:
            self._waiting = deque(entry for entry in self._waiting if _waits(entry))
            self._full = 2 * len(self._waiting) + _SMALL

    def settle(self, entries: Iterable[Entry], now: float, connected_at: float) -> None:
        """Note that tracked entries were confirmed, over a connection that came at `connected_at`."""
        for entry in entries:
            self.confirmed += 1
            self.late += entry.timed_out
            if entry.first_sent is not None:
                self.latency.record(now - entry.first_sent)
            self.response.record(now - max(entry.accepted_at, connected_at))
        self._trim()

    @property
    def deadline(self) -> float:
        """When `expire` has something to do next, in seconds on the hub's clock; infinity where nothing waits."""
        waiting = self._waiting
        first = waiting[0].first_sent if waiting else None
        return math.inf if first is None else first + self.timeout

    def expire(self, now: float) -> list[Entry]:
        """Count the confirmations that timed out by `now`.

        Returns: the entries, each once in its life; they stay held, and a later ack still confirms them.
        """
        timed_out = []
        while self._waiting and self.deadline <= now:
            entry = self._waiting.popleft()
            if _waits(entry):
                entry.timed_out = True
                self.timed_out += 1
                timed_out.append(entry)
            self._trim()
        return timed_out

    @property
    def rate(self) -> float:
        """The part of all confirmations that came in time, 0 to 1; 1 before there was any."""
        in_time = self.confirmed - self.late
        total = in_time + self.timed_out
        return in_time / total if total else 1.0

    def _trim(self) -> None:
        waiting = self._waiting
        while waiting and not _waits(waiting[0]):
            waiting.popleft()


def _waits(entry: Entry) -> bool:
    return entry.confirmed_at is None and entry.reason is None
