"""The invariants on what outlives a hub whose store is durable: what was promised, and what its names mean."""

from __future__ import annotations

import math

import attrs

from ...core import wire
from ...core.session import Session
from ...event import Event, Gap
from ...hub import Hub
from .bookkeeping import Balance, Bounds
from .record import Record
from .sight import Checker, Line, Published
from .traffic import Accounting, Content, Fencing, TabOrder


class Promises(Checker):
    """What must not be lost and was confirmed to its publisher is processed by a client, whatever dies in between; and
    until then its log goes on in the epoch that it was."""

    invariant = "nothing that was confirmed to its publisher is lost"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._open: dict[Published, float] = {}
        self._upto: dict[tuple[str, str], int] = {}

    def accepted(self, event: Published) -> None:
        receipt = event.receipt
        if event.critical and receipt is not None and not receipt.to_be_committed and not event.acked_by:
            self._open[event] = self.record.clock() + event.ttl

    def processed(self, client: str, event: Published, seen: Event) -> None:
        self._open.pop(event, None)

    def sent_plain(self, line: Line, event: Published) -> None:
        self._open.pop(event, None)

    def acked(self, line: Line, seq: int) -> None:
        # A client that acks what it does not process has it on its own conscience.
        if line.welcome is None or seq > line.cursor:
            return
        where = (line.welcome.epoch, line.welcome.session)
        for at in range(self._upto.get(where, 0) + 1, seq + 1):
            event = self.record.at(line, at)
            if event is not None and {line.client, line.welcome.session} & event.sent_to:
                event.acked_by.add(line.client)
                self._open.pop(event, None)
        self._upto[where] = max(seq, self._upto.get(where, 0))

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            for event in self.left():
                if event.user == line.user and event.epoch != frame.epoch:
                    self.fail(f"{line}: epoch {frame.epoch}, and {event} was promised in {event.epoch}")
        elif isinstance(frame, wire.GapFrame):
            if frame.critical and frame.reason != "expired":
                self.fail(f"{line}: {frame.critical} critical events lost because {frame.reason}")
            for seq in range(frame.first, frame.last + 1) if frame.reason == "settled" else ():
                found = self.record.at(line, seq)
                if found is not None and found.sent_to and not found.acked_by and not found.delta:
                    self.fail(f"{line}: {found} has settled, it says, and nobody acked it")

    def left(self) -> list[Published]:
        """What was promised, and is neither processed nor expired."""
        now = self.record.clock()
        return [event for event, until in self._open.items() if until > now]


class Resuming(Checker):
    """A client in good faith that comes back to a server that was away goes on: it is not told of a reset while it may
    still have something to come, and its place is not behind what it had acked before the commit that said so."""

    invariant = "who comes back goes on"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._seen: dict[tuple[str, str], int] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.welcome is None or not line.honest:
            return
        where = (line.user, line.welcome.epoch)
        if isinstance(frame, wire.Welcome):
            seen = self._seen.get(where, 0)
            if frame.head < seen:
                self.fail(f"{line}: the head is {frame.head}, and {seen} was shown before")
            asked = line.ask
            if asked.epoch == frame.epoch and (asked.seq or 0) <= seen and not frame.resumed and asked.seq:
                self.fail(f"{line} asked to go on from {asked.seq}, and begins anew in the same epoch")
        elif isinstance(frame, wire.EventFrame):
            self._seen[where] = max(frame.seq, self._seen.get(where, 0))
        elif isinstance(frame, wire.GapFrame):
            self._seen[where] = max(frame.last, self._seen.get(where, 0))


class Places(Checker):
    """What of a session was durable when its hub ended is there in the next life: the session itself, where it was
    connected and is the first to come back, and all that it had acked. The time of day is all that the next life knows
    of how long it was parked: by as much as that was put forward, it has been."""

    invariant = "a session goes on from where it was"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._life = 0
        self._durable: dict[str, tuple[int, bool]] = {}
        self._before: dict[str, tuple[int, bool]] = {}
        self._came: set[str] = set()
        # How far the time of day was ahead of the clock: the least since `_durable` was so, and in the life before; and
        # the most in this life.
        self._least = self._least_before = math.inf
        self._most = -math.inf

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        hub = self.record.hub
        self._turn_over()
        if hub is None or hub.engine.durability is None:
            return
        ahead = self._look_ahead(hub)
        self._least = min(ahead, self._least)
        there = {
            session.id: (session.acked, session.link is not None)
            for box in hub.engine.buffer.mailboxes.values()
            for session in box.sessions.values()
        }
        if hub.engine.durability.idle:
            self._durable, self._least = there, ahead
        else:  # what has ended since may be found to have, or not
            self._durable = {id: place for id, place in self._durable.items() if id in there}

    def _look_ahead(self, hub: Hub) -> float:
        """How far the time of day is ahead of the clock now."""
        ahead = hub.engine.wall_clock() - self.record.clock()
        self._most = max(ahead, self._most)
        return ahead

    def _turn_over(self) -> None:
        if self._life != self.record.life:
            self._life, self._before, self._durable = self.record.life, self._durable, {}
            self._least_before, self._least, self._most = self._least, math.inf, -math.inf
            self._came.clear()

    def attached(self, line: Line, session: Session) -> None:
        self._turn_over()
        hub = self.record.hub
        assert hub is not None
        self._look_ahead(hub)
        acked, connected = self._before.get(line.ask.session or "", (0, False))
        first = line.user not in self._came
        self.record.sometimes("resumed in another life", session.id in self._before)
        self._came.add(line.user)
        if session.id == line.ask.session and session.acked < acked:
            self.fail(f"{line} had acked {acked}, and counts as at {session.acked}")
        # It may have been parked in the drain of the life before, and a server may be away for some seconds.
        put_forward = max(0.0, self._most - self._least_before)
        in_time = self.record.clock() + put_forward < self.record.begun_at + hub.config.session_ttl - 15
        if (
            connected
            and first
            and in_time
            and session.id != line.ask.session
            and line.honest
            and line.ask.session not in self.record.dismissed
        ):
            self.fail(f"{line} comes back, and its session is not known")


class Order(TabOrder):
    """As `TabOrder`; what a crash may have cost of a log is no reset of its epoch."""

    def told(self, client: str, gap: Gap) -> None:
        if gap.reason == "reset" and not gap.anew:
            gap = attrs.evolve(gap, reason="evicted")
        super().told(client, gap)


ACROSS_LIVES = (Content, Accounting, Fencing, Order, Promises, Resuming, Places, Bounds, Balance)
"""What is watched where logs outlive hubs. The others know one life at a time, and watch the runs without a disk."""
