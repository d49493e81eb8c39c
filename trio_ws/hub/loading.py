"""Logs come back from the store as their users do: who is known to it and not to this process is asleep until then.

And where memory is full of events that must not go, logs of users who have no connection fall asleep again.
"""

from __future__ import annotations

import heapq
from typing import Final

import trio

from ..core import wire
from ..core.buffer import UNREAD
from ..core.records import Kept
from ..core.restoring import restore, restore_runs, restored_session
from ..errors import StoreError, StoreUnavailable
from ..event import Priority
from ..store import Fenced
from .engine import Engine
from .inbox import has_letters

AT_ONCE: Final = 16
"""How many logs fall asleep at once, where room is needed."""


class Loader:
    """Loads logs, each once, however many ask for it.

    Attributes:
      loaded: how many were, since the start.
      connected_until: when sessions were cut that are connected as the store has them, on the hub's clock; None where
        that is when their log is loaded.
    """

    def __init__(self, engine: Engine) -> None:
        self.loaded = 0
        self._engine = engine
        self._asleep = engine.buffer.asleep
        self._waking: str | None = None
        self._under_way: dict[str, trio.Event] = {}
        self.connected_until: float | None = engine.clock()

    async def load(self, user: str, *, to_connect: bool = False) -> None:
        """Have the log of `user` here. A checkpoint where it is asleep. Cancelled, it stays so.

        Args:
          to_connect: for a connection of the user, which is given what waits however full memory is.

        Raises:
          StoreUnavailable: the store can't be read, or memory is full of critical events of users who are connected.
        """
        while user in self._asleep:
            under_way = self._under_way.get(user)
            if under_way is None:
                await self._load(user, to_connect)
            else:
                await under_way.wait()

    def load_soon(self, user: str) -> None:
        """As `load`, by a task of the hub's."""
        if user in self._asleep and user not in self._under_way:
            self._engine.nursery.start_soon(self._try, user)

    async def _try(self, user: str) -> None:
        try:
            await self.load(user)
        except StoreUnavailable:
            pass  # whoever needs it asks again

    async def _load(self, user: str, to_connect: bool) -> None:
        durability = self._engine.durability
        assert durability is not None  # or nobody would be asleep
        done = self._under_way[user] = trio.Event()
        try:
            kept = await durability.store.load(user)
            if self._under_way.get(user) is not done:
                return  # the log became another process's meanwhile
            if kept is not None:
                self._make_room(kept, to_connect)
            known = self._asleep.pop(user) != UNREAD
            if kept is not None:
                self._wake(kept, known)
        except Fenced as error:  # who needs it looks again who has it
            if self._under_way.get(user) is done and durability.on_fenced is not None:
                durability.on_fenced(error)
        except StoreError as error:
            raise StoreUnavailable(f"the store can't be read: {error}") from error
        finally:
            if self._under_way.get(user) is done:
                del self._under_way[user]
            done.set()

    def is_under_way(self, user: str) -> bool:
        """Whether the log of `user` is being read."""
        return user in self._under_way

    def give_up(self, user: str) -> None:
        """The log of `user` is another process's: what is being read of it is of no use."""
        self._under_way.pop(user, None)

    def _make_room(self, kept: Kept, to_connect: bool) -> None:
        """Have room for what can't go of a log that comes in, as far as others can leave memory for it.

        Where all is full of critical events of users who are connected, it comes in all the same for a connection: one
        who does not ack must not keep others out. So a log for each connection may be in memory beyond the bound over
        all.
        """
        firm = [e for e in kept.events if e.priority == Priority.CRITICAL and not e.confirmed]
        size = sum(len(wire.event_tail(e.id, e.type, e.payload, e.ts)) for e in firm)
        while not self._engine.buffer.has_room_for(len(firm), size):
            if not self.let_sleep(kept.user.user):
                if to_connect:
                    return
                raise StoreUnavailable("the buffer is full of critical events of users who are connected")

    def let_sleep(self, but: str | None = None) -> bool:
        """Have some logs that hold critical events out of memory, those that had none for longest. Not a checkpoint.

        Args:
          but: a user who stays, if there is one.

        Returns: whether there were any: users without a connection, all of whose log is durable, for whose events
        nobody waits here, and who have no session any more in which they sent messages.
        """
        engine = self._engine
        idle = [
            box
            for box in engine.buffer.mailboxes.values()
            if box.firm_events
            and box.user not in (but, self._waking)
            and box.track is not None
            and box.track.idle
            and all(session.link is None and not has_letters(session) for session in box.sessions.values())
            and not engine.room.line(box.user)
            and all(entry.stored and not entry.waiters for entry in box.entries.values())
            and (box.rest is None or not box.rest.is_awaited)
        ]
        for box in heapq.nsmallest(AT_ONCE, idle, key=lambda box: box.last_event_at):
            for session in box.sessions.values():
                engine.pool.forget(session)
            engine.timers.disarm(box)
            engine.buffer.sleep(box)
        return bool(idle)

    def _wake(self, kept: Kept, known: bool) -> None:
        """Put back what the store has of one user; where it is `known`, it was counted before."""
        engine, books = self._engine, self._engine.books
        now = engine.clock()
        offset = engine.wall_clock() - now
        box = engine.buffer.mailbox(kept.user.user)
        counted = books.accepted, books.held, books.settled
        restore(box, kept, now, offset, asleep=known)
        if box.runs is None and kept.runs:  # of who has open runs they never left memory
            box.runs = engine.buffer.runs.of(box.user)
            restore_runs(box.runs, kept, now, offset)
        self.loaded += 1
        assert engine.durability is not None
        if not known:
            unconfirmed = sum(e.seq - e.first + 1 for e in kept.events if not e.confirmed)
            engine.durability.was_read(unconfirmed + (0 if box.rest is None else box.rest.events))
        over = []
        for record in kept.sessions:
            session = restored_session(
                record,
                box,
                books=engine.books,
                confirmations=engine.confirmations,
                retry_intervals=engine.config.retry_intervals,
                now=now,
                wall_offset=offset,
                parked_at=now if self.connected_until is None else self.connected_until,
            )
            over += engine.pool.restore(session)
            if record.parked is None and box.track is not None:
                box.track.moved(session)  # since when it is parked is to be known to who loads it next
            if session.parked_at + engine.config.session_ttl <= now:
                over.append(session)
        box.settle_again()
        if known:
            books.asleep -= books.held - counted[1]
            books.accepted, books.held, books.settled = counted
        for session in dict.fromkeys(over):
            engine.pool.end(session, now)
        box.sweep(now)
        engine.buffer.restored(box)
        engine.arm(box, box.next_expiry if box.rest is None else min(box.next_expiry, box.rest.due))
        loaded, engine.durability.loaded = engine.durability.loaded, trio.Event()
        loaded.set()
        self._waking = box.user  # who has it loaded is to find it here
        if engine.on_woken is not None:
            engine.on_woken(box)
        engine.react()
        self._waking = None
