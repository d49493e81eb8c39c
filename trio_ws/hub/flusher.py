"""The flusher: one task that writes what is pending, once a turn of the loop, for each connection that was marked.

Publishing only marks a connection. So nothing wakes per delivery, and what is published in one turn goes out in one
write. A connection that was written to within the last batch window waits for the window's end, unless a critical event
is among what it waits for: that flushes all before it, at once. One window serves all connections: whoever waits is
flushed when the earliest is due. And what would wait for less than a fifth of a window is written at once: little more
would come until then, and a timer takes more of the processor than some writes do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio

logger = logging.getLogger(__name__)

WORTH: Final = 0.8
"""The part of a batch window after its beginning in which who comes is made to wait for its end."""

TURN: Final = 64
"""How many connections are written to before other tasks get a turn."""


class Flushable(Protocol):
    """A connection that can be marked."""

    marked: bool
    waiting: bool
    written_at: float

    def flush(self, now: float) -> None:
        """Write what is pending. It must not raise."""


class Flusher:
    """Collects marks, and flushes them.

    Args:
      window: the batch window in seconds; 0 has everything flushed at once.
      clock: the hub's clock.
      arm: has `on_timer` called at the end of a window.
    """

    def __init__(self, window: float, clock: Callable[[], float], arm: Callable[[float], None]) -> None:
        self._window = window
        self._busy = window * WORTH
        self._clock = clock
        self._arm = arm
        self._marked: list[Flushable] = []
        self._waiting: dict[Flushable, None] = {}
        self._idle = trio.lowlevel.ParkingLot()

    def mark(self, connection: Flushable, *, urgent: bool) -> None:
        """Have `connection` flushed: in this turn if it is `urgent` or was idle, else at the window's end."""
        if connection.marked:
            return
        if not urgent and self._clock() - connection.written_at < self._busy:
            if not connection.waiting:
                connection.waiting = True
                self._waiting[connection] = None
                if len(self._waiting) == 1:
                    self._arm(connection.written_at + self._window)
            return
        if connection.waiting:
            connection.waiting = False
            self._waiting.pop(connection, None)
        connection.marked = True
        self._marked.append(connection)
        if len(self._marked) == 1:
            self._idle.unpark()

    def on_timer(self, now: float) -> float:
        """A batch window has ended: whoever waits is flushed with the next turn."""
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            connection.waiting = False
            self.mark(connection, urgent=True)
        return float("inf")

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            if not self._marked:
                await self._idle.park()
            else:
                await trio.lowlevel.checkpoint()
            now = self._clock()
            batch, self._marked = self._marked, []
            for at, connection in enumerate(batch, 1):
                connection.marked = False
                connection.flush(now)
                if at % TURN == 0:
                    await trio.lowlevel.checkpoint()
                    now = self._clock()
