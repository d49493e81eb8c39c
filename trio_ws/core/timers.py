"""Deadlines of many owners in one heap, with at most one live entry an owner: moved lazily, never polled.

An owner whose deadline moves later is left where it is and looked at again when the old time comes; only one that moves
earlier costs a push. So a deadline that each frame puts off costs nothing a frame.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol


class Timed(Protocol):
    """What a timer can be armed for."""

    def on_timer(self, now: float) -> float:
        """The time that it was armed for has come; returns when to look again (infinity: not until armed)."""


class Timers:
    """The earliest of all deadlines, on a clock that the caller keeps."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._armed: dict[Timed, tuple[float, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, owner: Timed, at: float) -> bool:
        """Have `owner` looked at no later than `at`; returns whether the earliest of all has moved."""
        armed = self._armed.get(owner)
        if at == math.inf or (armed is not None and armed[0] <= at):
            return False
        before = self.next()
        self._count += 1
        self._armed[owner] = (at, self._count)
        heapq.heappush(self._heap, (at, self._count, owner))
        if len(self._heap) > 4 * len(self._armed) + 64:
            self._heap = [item for item in self._heap if self._live(item)]
            heapq.heapify(self._heap)
        return at < before

    def disarm(self, owner: Timed) -> None:
        """Forget `owner`."""
        self._armed.pop(owner, None)

    def next(self) -> float:
        """The earliest deadline; infinity where there is none."""
        heap = self._heap
        while heap and not self._live(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def run(self, now: float) -> None:
        """Call every owner whose time has come by `now`, the earliest first, and arm it for what it returns."""
        while self.next() <= now:
            owner = heapq.heappop(self._heap)[2]
            del self._armed[owner]
            again = owner.on_timer(now)
            self.arm(owner, max(again, math.nextafter(now, math.inf)))

    def _live(self, item: tuple[float, int, Timed]) -> bool:
        armed = self._armed.get(item[2])
        return armed is not None and armed[1] == item[1]
