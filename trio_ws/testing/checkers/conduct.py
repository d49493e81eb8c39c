"""The invariants on how the server conducts itself towards connections: whom it lets in where, holds back, and closes.

What is sent over them is in `traffic.py`, when it is due in `timeliness.py`.
"""

from __future__ import annotations

import math
from itertools import takewhile

from ...core import closing, wire
from ...core.closing import CloseCode
from ...core.mailbox import Mailbox
from ...core.pool import PARKED_PER_CONNECTION
from ...core.session import Session
from ...hub import Hub
from .record import Record
from .sight import Checker, Line, Published

CLOSED_WITHIN = 12.0
"""Seconds in which a connection that was told to close has gone: what is queued may take `write_timeout`, twice."""

STEP = 0.25
"""Seconds by which a deadline that each frame moves may lag behind."""

ROUNDING = 1e-6


class Starts(Checker):
    """A session begins no later than what it asked for, and is not sent what it asked to be spared."""

    invariant = "a session begins where it asked to"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._spared: dict[str, set[int]] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            self._spared.pop(
                frame.session, None
            )  # who comes back is sent what was not acked, whoever confirmed it
            if not frame.resumed:
                self._begin(line, frame)
        elif isinstance(frame, wire.EventFrame) and line.welcome is not None and frame.retry == 0:
            confirmed = self._spared.get(line.welcome.session, ())
            if frame.seq in confirmed:
                self.fail(f"{line} asked for what is pending, and is sent {frame.seq}, which was confirmed")

    def _begin(self, line: Line, frame: wire.Welcome) -> None:
        assert self.record.hub is not None
        log = self.record.log.get((line.user, frame.epoch), {})
        if line.ask.start == "pending":
            states = {seq: event.state for seq, event in log.items()}
            lost = [seq for seq, state in states.items() if seq <= frame.seq and state in ("held", "sent")]
            self._spared[frame.session] = {
                seq
                for seq, state in states.items()
                if seq > frame.seq and state in ("confirmed", "settled") and not log[seq].delta
            }
        elif line.ask.start == "retained":
            box = self.record.hub.engine.buffer.mailboxes[line.user]
            lost = [seq for seq in box.entries if seq <= frame.seq]
        else:
            lost = []
        if lost:
            self.fail(f"{line} asked for what is {line.ask.start}, and begins after {min(lost)}")


class HeldBack(Checker):
    """Nothing is taken from the log for a connection whose transport takes nothing."""

    invariant = "who takes nothing is given nothing more"

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.blocked is not None and isinstance(frame, wire.EventFrame | wire.GapFrame):
            self.fail(f"{line} takes nothing since {line.blocked:.3f}, and is given {frame}")


class Closing(Checker):
    """A connection is closed for what it did, with the code for that; and who is closed goes."""

    invariant = "a connection is closed only for a reason, and then soon"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._progress: dict[Line, float] = {}
        self._sent: dict[Line, dict[int, int]] = {}
        self._bye: set[int] = set()
        self._leaving: dict[Line, float] = {}

    def attached(self, line: Line, session: Session) -> None:
        self._progress[line] = self.record.clock()

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.EventFrame):
            first = frame.seq if frame.merged is None else frame.merged.from_
            sent = self._sent.setdefault(line, {})
            sent.update((seq, seq) for seq in range(first, frame.seq))
            sent[frame.seq] = first

    def acked(self, line: Line, seq: int) -> None:
        if line.attachment is None:
            return
        session = line.attachment.session
        # Amid deltas that came as one, an ack says nothing beyond the ones before.
        if seq <= session.top and session.box.boundary(seq) > session.acked:
            self._progress[line] = self.record.clock()

    def nacked(self, line: Line, seq: int) -> None:
        if line.attachment is None:
            return
        session = line.attachment.session
        # Of what is not in flight, or no longer held, a nack says nothing that the server could act on.
        first = self._sent.get(line, {}).get(seq)
        if first is None or not session.acked < seq <= session.cursor:
            return
        entries = session.box.entries
        # What stands for several deltas is no longer held when one of them is not.
        while first in entries and entries[first].seq < seq:
            first = entries[first].seq + 1
        if first in entries and entries[first].seq == seq:
            self._progress[line] = self.record.clock()

    def heard(self, line: Line, frame: wire.ClientFrame | wire.Mistake) -> None:
        if isinstance(frame, wire.Bye):
            self._bye.add(line.number)

    def closed(self, line: Line, code: CloseCode, reason: str) -> None:
        hub, now = self.record.hub, self.record.clock()
        assert hub is not None
        config = hub.config
        self._leaving[line] = now
        wrong = ""
        if code is closing.INTERNAL_ERROR:
            wrong = "nothing should fail inside"
        elif code is closing.NORMAL and line.number not in self._bye:
            wrong = "it never said bye"
        elif code is closing.PROTOCOL_ERROR and line.honest:
            wrong = "it keeps the protocol"
        elif code is closing.SLOW_CONSUMER and line.honest:
            if line.blocked is None or now < line.blocked + config.stall_timeout - ROUNDING:
                wrong = f"it takes nothing since {line.blocked}"
        elif code is closing.TIMEOUT:
            quiet = now - self._progress.get(line, -math.inf)
            if quiet < config.retry_intervals[-1] - ROUNDING:
                wrong = f"it acked or nacked something {quiet:.3f} s ago"
        elif code is closing.DRAINING and not hub.draining:
            wrong = "the server is not going away"
        if wrong:
            self.fail(f"{line} is closed with {code.code} ({reason}), but {wrong}")

    def went(self, line: Line, silent: bool) -> None:
        self._leaving.pop(line, None)
        self._progress.pop(line, None)
        self._sent.pop(line, None)

    def due(self) -> float:
        return min(self._leaving.values(), default=math.inf) + CLOSED_WITHIN

    def stepped(self) -> None:
        now = self.record.clock()
        for line in self._progress:
            if line not in self._leaving and line.attachment is not None and line.attachment.fenced:
                self._leaving[line] = now
        for line, since in list(self._leaving.items()):
            if line.life != self.record.life:
                del self._leaving[line]
            elif now > max(since, self.record.jumped_at) + CLOSED_WITHIN:
                self.fail(f"{line} counts no more since {since:.3f}, and is still there")

    def life_over(self, events: object) -> None:
        self._leaving.clear()
        self._progress.clear()
        self._sent.clear()


class Liveness(Checker):
    """Who is heard is not dropped for silence; who is not heard is."""

    invariant = "who is heard stays, who falls silent is dropped"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._promised: dict[Line, float] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.welcome is None:
            return
        active = line.welcome.heartbeat.active
        beat = frame.next if isinstance(frame, wire.ServerPing) else active
        # Until it is heard from, what counts is the longest that it was promised meanwhile.
        self._promised[line] = max(beat, self._promised.get(line, active))

    def heard(self, line: Line, frame: wire.ClientFrame | wire.Mistake) -> None:
        if line.welcome is not None:
            self._promised[line] = min(self._promised.get(line, math.inf), line.welcome.heartbeat.idle)

    def went(self, line: Line, silent: bool) -> None:
        self._promised.pop(line, None)
        if silent and line.welcome is not None and not line.closing:
            heartbeat, quiet = line.welcome.heartbeat, self.record.clock() - line.heard_at
            jumped = self.record.clock() <= self.record.jumped_at + STEP  # its deadline may have passed
            if quiet < heartbeat.active + heartbeat.grace - STEP - ROUNDING and not jumped:
                self.fail(f"{line} is dropped for silence, and was heard {quiet:.3f} s ago")

    def due(self) -> float:
        return min(map(self._latest, self._promised), default=math.inf)

    def _latest(self, line: Line) -> float:
        """By when it must have been heard, or be gone; with a little more, for it is told in steps."""
        assert line.welcome is not None
        heartbeat = line.welcome.heartbeat
        heard_at = max(line.heard_at, self.record.jumped_at)
        return heard_at + self._promised[line] + heartbeat.grace + 2 * heartbeat.active

    def looked(self) -> None:
        now = self.record.clock()
        for line in list(self._promised):
            if not line.open or line.life != self.record.life:
                del self._promised[line]
            elif now > self._latest(line):
                self.fail(f"{line} was not heard from since {line.heard_at:.3f}, and is kept")


class Kept(Checker):
    """A session lasts until it is told goodbye, makes way for another, or was parked for all its time."""

    invariant = "no session ends before its time"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._parked: dict[str, tuple[Line, float]] = {}
        self._held: dict[str, Line] = {}
        self._over: set[str] = set()

    def attached(self, line: Line, session: Session) -> None:
        if not line.plain:
            self._parked.pop(session.id, None)
            self._held[session.id] = line

    def heard(self, line: Line, frame: wire.ClientFrame | wire.Mistake) -> None:
        if isinstance(frame, wire.Bye) and line.welcome is not None:
            self._over.add(line.welcome.session)

    def went(self, line: Line, silent: bool) -> None:
        if line.welcome is not None and self._held.get(line.welcome.session) is line:
            del self._held[line.welcome.session]
            self._parked[line.welcome.session] = (line, self.record.clock())

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        hub, now = self.record.hub, self.record.clock()
        assert hub is not None
        pool, ttl = hub.engine.pool, hub.config.session_ttl
        crowded = pool.parked >= PARKED_PER_CONNECTION * hub.config.max_connections
        for name, line in [item for item in self._held.items() if not self._is_there(*item)]:
            del self._held[name]
            ended = line.closing or line.gone or line.life != self.record.life
            if not (ended or self._excused(name, line)):
                self.fail(f"{line} holds a session, which has ended")
        for name, (line, since) in list(self._parked.items()):
            if self._is_there(name, line):
                continue
            del self._parked[name]
            if line.life != self.record.life:
                continue  # it came while that hub was going
            if now < since + ttl - ROUNDING and not crowded and not self._excused(name, line):
                self.fail(f"the session of {line}, parked at {since:.3f}, has ended")

    def _is_there(self, name: str, line: Line) -> bool:
        assert self.record.hub is not None
        box = self.record.hub.engine.buffer.mailboxes.get(line.user)
        return box is not None and name in box.sessions

    def _excused(self, name: str, line: Line) -> bool:
        """Whether it was told to end, or one of its user comes just now and it may have made way."""
        return name in self._over or name in self.record.dismissed or _comes(self.record, line.user)

    def life_over(self, events: object) -> None:
        self._parked.clear()
        self._held.clear()


def _comes(record: Record, user: str) -> bool:
    """Whether a connection of `user` comes at this very moment."""
    now = record.clock()
    return any(
        line.user == user for line in takewhile(lambda line: line.opened_at == now, reversed(record.lines))
    )


class MakesWay(Checker):
    """At its limit, a user's parked sessions make way first, then silent ones, then the oldest."""

    invariant = "who makes way is the stalest"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._before: dict[str, list[_Seat]] = {}
        self._full = False

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        assert self.record.hub is not None
        engine = self.record.hub.engine
        for user, box in engine.buffer.mailboxes.items():
            before = self._before.get(user, [])
            # Where all connections in all are taken, one that is connected has to go in any case.
            at_limit = len(before) == engine.config.max_connections_per_user and not self._full
            if at_limit and _comes(self.record, user):
                self._look(user, before, box)
            full = len(box.sessions) == engine.config.max_connections_per_user
            self._before[user] = [_Seat(session) for session in box.sessions.values()] if full else []
        self._full = engine.pool.sockets >= engine.config.max_connections

    def _look(self, user: str, before: list[_Seat], box: Mailbox) -> None:
        gone = [seat for seat in before if seat.name not in box.sessions]
        if not set(box.sessions) - {seat.name for seat in before}:
            return  # who came took up a session that was there
        for left in gone:
            for seat in before:
                staler = (seat.connected, seat.since) < (left.connected, left.since)
                if seat not in gone and staler and not left.in_debt:
                    self.fail(f"of {user}'s sessions, {left} made way, and {seat} stays")

    def life_over(self, events: object) -> None:
        self._before.clear()


class _Seat:
    """A session as it was after a step; `in_debt` where it may count as silent."""

    def __init__(self, session: Session) -> None:
        self.name = session.id
        self.connected = session.link is not None
        self.since = session.connected_at
        self.in_debt = session.blocked is not None or session.cursor > session.acked

    def __str__(self) -> str:
        state = "connected" if self.connected else "parked"
        return f"{self.name} ({state}{', in debt' if self.in_debt else ''}, since {self.since:.3f})"


class InOrder(Checker):
    """A server that goes away accepts nothing more, says when to come back, and writes what is pending first."""

    invariant = "the end is in order"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._told: dict[int, float] = {}
        self._heads: dict[tuple[str, str], int] = {}

    def going(self, hub: Hub) -> None:
        boxes = hub.engine.buffer.mailboxes
        self._heads.update({(user, box.epoch): box.head for user, box in boxes.items()})

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Drain):
            self._told[line.number] = self.record.clock()

    def closed(self, line: Line, code: CloseCode, reason: str) -> None:
        hub = self.record.hub
        assert hub is not None
        if code is not closing.DRAINING or hub.engine.closed or line.plain or line.attachment is None:
            return
        session, told_at = line.attachment.session, self._told.get(line.number)
        if told_at is None:
            self.fail(f"{line} was not told that the server goes away")
            return
        # What is sent again while others are waited for may find no room.
        taken = line.blocked is None or line.blocked > told_at
        flushed = taken and session.cursor >= session.box.head
        if not flushed and self.record.clock() < told_at + hub.config.drain_timeout - ROUNDING:
            self.fail(
                f"{line} is at {session.cursor}, its log at {session.box.head}, and is closed before its time"
            )

    def accepted(self, event: Published) -> None:
        hub = self.record.hub
        # A publisher may learn only now of what was accepted right before.
        before = event.seq <= self._heads.get((event.user, event.epoch), 0)
        if hub is not None and hub.draining and not before:
            self.fail(f"{event} was accepted while the server was going away")


IN_CONDUCT = (Starts, HeldBack, Closing, Liveness, Kept, MakesWay, InOrder)
"""All of them."""
