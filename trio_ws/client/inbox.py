"""What was received and is not processed yet: a bounded queue, the event in the application's hands, and the one
that it handed back.

Gaps stand in the queue at their place among the events, so that what is told about them comes in order. Nothing here
raises or waits but `wait_ready` and `wait_room`; one task takes, one task puts.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs
import trio

from ..event import Event, Gap

MAX_ITEMS: Final = 1000
MAX_BYTES: Final = 1024 * 1024
REDO_AFTER: Final = 6.0
"""How long an event that was handed back waits for the server's redelivery, in seconds, before it is given again
from here: the server may be away, or may hold it no more. It is above the longest of the default `retry_intervals`."""


@attrs.frozen
class Entry:
    """One place in the queue.

    Attributes:
      item: an event or a gap; None for what needs no more than to be acked in its turn.
      seq: the last seq it covers; 0 where it covers none, as a snapshot does.
      life: the life of the session that `seq` belongs to.
      size: its share of the message that it came in, in bytes.
    """

    item: Event | Gap | None
    seq: int
    life: int
    size: int = 0


class Inbox:
    """See the module's docstring. Full at `MAX_ITEMS` items or `MAX_BYTES` bytes, with room again at half of both.

    Being full is told, not enforced: who reads the connection stops after the message that filled it.
    """

    __slots__ = ("_bytes", "_changed", "_entries", "_in_hand", "_redo", "_redo_at", "_room")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._in_hand: Entry | None = None
        self._redo: Entry | None = None
        self._redo_at = math.inf
        self._changed = trio.Event()
        self._room: trio.Event | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The bytes of all that is queued."""
        return self._bytes

    @property
    def full(self) -> bool:
        return len(self._entries) >= MAX_ITEMS or self._bytes >= MAX_BYTES

    @property
    def idle(self) -> bool:
        """That nothing waits to be taken."""
        return not self._entries and self._redo is None

    @property
    def redo(self) -> Entry | None:
        """What was handed back and has not been taken again."""
        return self._redo

    def put(self, entry: Entry) -> None:
        """Appends, however full."""
        self._entries.append(entry)
        self._bytes += entry.size
        self.wake()

    def wake(self) -> None:
        """Wakes `wait_ready`."""
        self._changed.set()

    def clear(self) -> None:
        """Forgets everything but what is in the application's hands."""
        self._entries.clear()
        self._bytes = 0
        self._redo = None
        self._redo_at = math.inf
        self._give_room()
        self.wake()

    def take(self, now: float) -> Entry | None:
        """The next entry, if there is one whose time has come. An event is in hand then, until `finish` or
        `hand_back`."""
        if self._redo is not None:
            if now < self._redo_at:
                return None
            entry, self._redo, self._redo_at = self._redo, None, math.inf
        elif self._entries:
            entry = self._entries.popleft()
            self._bytes -= entry.size
            if len(self._entries) <= MAX_ITEMS // 2 and self._bytes <= MAX_BYTES // 2:
                self._give_room()
        else:
            return None
        if isinstance(entry.item, Event):
            self._in_hand = entry
        return entry

    def finish(self) -> Entry | None:
        """The application is done with what is in hand; it is returned."""
        entry, self._in_hand = self._in_hand, None
        return entry

    def hand_back(self, event: Event, now: float) -> Entry | None:
        """The application could not process `event`, which must be the one in hand (else None is returned).

        It is taken again before anything else: when it has been redelivered, or after `REDO_AFTER`.
        """
        entry = self._in_hand
        if entry is None or not isinstance(entry.item, Event):
            return None
        if (entry.item.seq, entry.item.id) != (event.seq, event.id):
            return None
        self._in_hand = None
        self._redo = attrs.evolve(entry, item=attrs.evolve(entry.item, retry=entry.item.retry + 1))
        self._redo_at = now + REDO_AFTER
        self.wake()
        return entry

    def redelivered(self, life: int, seq: int, retry: int, now: float) -> bool:
        """The server has sent `seq` again; True if that is what was handed back.

        What is given is the event as it came first: merged as it was then, it neither lacks nor repeats anything.
        """
        entry = self._redo
        if entry is None or (entry.life, entry.seq) != (life, seq) or not isinstance(entry.item, Event):
            return False
        self._redo = attrs.evolve(entry, item=attrs.evolve(entry.item, retry=retry))
        self._redo_at = now
        self.wake()
        return True

    def _give_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    async def wait_ready(self) -> None:
        """Returns when `take` is worth another try, or after `wake`. A checkpoint; cancelling it changes nothing."""
        if self._changed.is_set():
            self._changed = trio.Event()
        with trio.CancelScope(deadline=self._redo_at):
            await self._changed.wait()

    async def wait_room(self) -> None:
        """To be called while it is `full`: returns when the queue is down to half. A checkpoint; cancelling it changes
        nothing."""
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()
