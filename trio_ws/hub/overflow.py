"""What memory had no room for lies in the store, behind what is here (`core/rest.py`): it is read back as room comes.

It is read back for users who have a connection, some of it at a time, each time that an ack, or whatever else, has made
room for it. And some of it is let go where it lies: what has expired, and, where the rest of a log has grown as long as
it may, what is not critical.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from ..core.entry import EVICTED, EXPIRED, Entry
from ..core.mailbox import Mailbox
from ..core.records import EventRecord, Part
from ..core.rest import Rest
from ..core.restoring import entry_of
from ..errors import StoreError
from .engine import Engine

logger = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""How many events are read, or let go, at once, so that the loop is not held."""

WORTH: Final = 4
"""Room for less than the 4th part of what may be in memory is not worth reading for, while acks may make more."""

PAUSE: Final = 1.0
"""Seconds until the store is asked again, where it can't be read."""


class Overflow:
    """Sees to the rests of logs, each log by a task of its own for as long as there is something to do.

    Args:
      engine: the hub's state.
      let_sleep: has logs out of memory, but for one user's.
    """

    def __init__(self, engine: Engine, let_sleep: Callable[[str], bool]) -> None:
        self._engine = engine
        self._let_sleep = let_sleep
        self._under_way: set[Mailbox] = set()
        self._again: set[Mailbox] = set()

    def look(self) -> None:
        """See to the logs whose rest is to be looked at. Not a checkpoint."""
        books = self._engine.books
        rests, books.rests = books.rests, {}
        for box in rests:
            if box in self._under_way:
                self._again.add(box)
            elif self._step(box) is not None:
                self._under_way.add(box)
                self._engine.nursery.start_soon(self._see_to, box)

    async def _see_to(self, box: Mailbox) -> None:
        """Do for one log all that can be done now."""
        try:
            while (part := self._step(box)) is not None:
                self._again.discard(box)
                try:
                    done = await self._do(box, part)
                except StoreError:
                    logger.warning("what waits in the store can't be read for now")
                    await trio.sleep(PAUSE)
                else:
                    changed = done or box in self._again
                    self._engine.react()  # a publisher who is refused room again asks for a look, which changes nothing
                    if not changed:
                        break
        except Exception:
            logger.exception("what waits in the store was left there")
        finally:
            self._under_way.discard(box)
            self._again.discard(box)

    def _step(self, box: Mailbox) -> Part | None:
        """What of the rest is to be read next, of what is durable; None where nothing is."""
        rest, track = box.rest, box.track
        if rest is None or track is None or box.closed or track.committed < rest.first:
            return None
        first, last, limit = rest.first, track.committed, self._engine.config.max_bytes_per_user
        if rest.due <= self._engine.clock():
            return Part(first=first, last=last, most=AT_ONCE, size=limit, mortal=True)
        events, size = self._room(box)
        if events > 0:
            return Part(first=first, last=last, most=min(events, AT_ONCE), size=size)
        if rest.lesser and self._engine.buffer.is_crowded(box):
            return Part(first=first, last=last, most=AT_ONCE, size=limit, lesser=True)
        return None

    def _room(self, box: Mailbox) -> tuple[int, int]:
        """How many events, and bytes, are worth reading back; none for a user who is not there."""
        rest, links = box.rest, [s for s in box.sessions.values() if s.link is not None]
        if rest is None or not links:
            return 0, 0
        config = self._engine.config
        events, size = self._engine.buffer.room_to_take_in(box)
        if events <= 0 or size <= 0 or size < rest.wanted:
            return 0, 0
        enough = (
            events >= min(rest.events, config.max_events_per_user // WORTH)
            and size >= config.max_bytes_per_user // WORTH
        )
        waited_for = any(session.acked < box.ready for session in links)
        return (events, size) if enough or not waited_for else (0, 0)

    async def _do(self, box: Mailbox, part: Part) -> bool:
        """Read a part of the rest, and put it where it belongs; returns whether there may be more to do."""
        engine, rest = self._engine, box.rest
        assert rest is not None
        assert engine.durability is not None
        if part.mortal:
            rest.due = math.inf  # until it is known; what is put there meanwhile lowers it
        try:
            found = await engine.durability.store.read(box.user, part)
        except StoreError:
            if part.mortal:
                rest.due = engine.clock()
            raise
        if box.closed:
            return False
        now = engine.clock()
        offset = engine.wall_clock() - now
        entries = [entry_of(event, now, offset) for event in found if not self._is_gone(box, event)]
        is_all = len(found) < part.most and sum(len(event.payload) for event in found) < part.size
        if part.mortal:
            self._expire(rest, entries, is_all=is_all and part.last == box.head)
        elif part.lesser:
            return self._let_go(rest, entries, is_all=is_all and part.last == box.head)
        elif found and not entries:
            engine.buffer.take_in(box, [], found[-1].seq)
        else:
            return self._take_in(box, rest, entries, part.last if is_all else None)
        return True

    @staticmethod
    def _is_gone(box: Mailbox, event: EventRecord) -> bool:
        """Whether `event` was let go, and has not left the store yet."""
        return box.gone.at(event.first) is not None

    def _expire(self, rest: Rest, entries: list[Entry], *, is_all: bool) -> None:
        """Let go what has expired of `entries`: of all that can, or of the first to do so."""
        now = self._engine.clock()
        if not is_all:
            rest.due = min(rest.due, now + PAUSE)
        for entry in entries:
            if entry.expires_at <= now:
                rest.let_go(entry, EXPIRED, now)
            else:
                rest.due = min(rest.due, entry.expires_at)

    def _let_go(self, rest: Rest, entries: list[Entry], *, is_all: bool) -> bool:
        """Let `entries` go, which are not critical; returns whether there may be more to do now."""
        now = self._engine.clock()
        for entry in entries:
            rest.let_go(entry, EVICTED, now)
        if is_all:
            rest.lesser = 0
        return is_all or bool(entries)

    def _take_in(self, box: Mailbox, rest: Rest, entries: list[Entry], upto: int | None) -> bool:
        """Have `entries` in memory as far as they fit; they are all of the rest up to `upto`, if that is known."""
        buffer = self._engine.buffer
        events, room = buffer.room_to_take_in(box)
        alone = not any(box.staying())  # more than there is room for in all: the limit was another once
        size = fitting = 0
        for entry in entries:
            if fitting >= events:
                break
            if size + entry.size > room and (fitting or not alone):
                rest.wanted = entry.size
                break
            size += entry.size
            fitting += 1
        if entries and not fitting:
            return False
        if upto is None or fitting < len(entries):
            upto = entries[fitting - 1].seq
        while not buffer.has_room_for(fitting, size) and self._let_sleep(box.user):
            pass
        buffer.take_in(box, entries[:fitting], upto)
        return True
