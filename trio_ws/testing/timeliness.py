"""The invariants on when things happen: nothing lies about, redelivery keeps its schedule, heartbeats come."""

from __future__ import annotations

import math

from ..core import wire
from .record import Record
from .sight import Checker, Line

SLACK = 0.25
"""Simulated seconds that something which is due may take."""


class Prompt(Checker):
    """What was accepted is written at the end of its batch window, where the transport takes it."""

    invariant = "what can be sent is sent"

    def stepped(self) -> None:
        hub, now = self.record.hub, self.record.clock()
        assert hub is not None
        latest = now - SLACK - hub.config.batch_interval
        if max(self.record.jumped_at, self.record.begun_at) > latest:
            return
        for attachment in hub.engine.attachments:
            session = attachment.session
            if session.cursor >= session.box.head or session.blocked is not None:
                continue
            line = self.record.line_of(attachment)
            entry = session.box.entries.get(session.cursor + 1)
            if line is None or not line.open or entry is None:
                continue
            if max(entry.accepted_at, line.opened_at, line.free_since) < latest:
                self.fail(f"{line}: {entry.seq}, accepted at {entry.accepted_at:.3f}, was not sent yet")


class Heartbeats(Checker):
    """The next frame comes when it was promised, where the transport takes it."""

    invariant = "heartbeats come in time"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._promised: dict[Line, float] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.welcome is not None:
            beat = frame.next if isinstance(frame, wire.ServerPing) else line.welcome.heartbeat.active
            self._promised[line] = self.record.clock() + beat

    def stepped(self) -> None:
        now = self.record.clock()
        for line, promised in list(self._promised.items()):
            if not line.open or line.life != self.record.life:
                del self._promised[line]
            elif line.blocked is None and now > max(promised, line.free_since, self.record.jumped_at) + SLACK:
                self.fail(f"{line}: a frame was promised by {promised:.3f}")


class Repetition(Checker):
    """The schedule of redelivery: not before it is due, not late, numbered, and only of what was sent."""

    invariant = "redelivery follows the schedule"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._flights: dict[Line, _Flight] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            self._flights[line] = _Flight(self.record.clock())
        if not isinstance(frame, wire.EventFrame):
            return
        flight, now = self._flights.get(line), self.record.clock()
        if flight is None:  # it was told to close
            return
        if frame.retry == 0:
            event = self.record.at(line, frame.seq)
            if line.cursor <= flight.acked:
                flight.progress_at = now
            if event is not None and event.tracked:
                flight.written[frame.seq] = now
            return
        tries = flight.tries[frame.seq] = flight.tries.get(frame.seq, 0) + 1
        if frame.retry != tries:
            self.fail(f"{line}: retry {frame.retry} of {frame.seq} is the {tries}th")
        if frame.seq in flight.nacked:
            flight.nacked.discard(frame.seq)
        elif frame.seq not in flight.written:
            self.fail(f"{line}: {frame.seq} is sent again, and is neither tracked nor nacked")
        elif now < flight.written[frame.seq] + self._intervals[0] - 1e-6:
            self.fail(f"{line}: {frame.seq} is sent again after {now - flight.written[frame.seq]:.3f} s")
        elif older := [seq for seq in flight.written if seq < frame.seq and self._waits(line, seq)]:
            self.fail(f"{line}: {frame.seq} is sent again, and {older[0]} is older")
        flight.last_try = now

    def _waits(self, line: Line, seq: int) -> bool:
        """Whether what was sent at `seq` is critical, still in the log, and owed."""
        event = self.record.at(line, seq)
        return event is not None and event.critical and event.state in ("sent", "confirmed")

    def acked(self, line: Line, seq: int) -> None:
        flight = self._flights.get(line)
        if flight is not None and flight.acked < seq <= line.cursor:
            flight.acked = seq
            flight.progress_at = self.record.clock()
            for name in [name for name in flight.written if name <= seq]:
                del flight.written[name]

    def nacked(self, line: Line, seq: int) -> None:
        flight = self._flights.get(line)
        if flight is not None:
            flight.nacked.add(seq)
            flight.progress_at = self.record.clock()
            flight.ever_nacked = True

    def stepped(self) -> None:
        for line in list(self._flights):
            if not line.open or line.life != self.record.life:
                del self._flights[line]

    @property
    def _intervals(self) -> tuple[float, ...]:
        assert self.record.hub is not None
        return self.record.hub.config.retry_intervals


class RepetitionInTime(Repetition):
    """The other half of it: what is due is sent again within 250 ms. It looks at critical events only."""

    invariant = "redelivery is in time"

    def fail(self, text: str) -> None:
        """Only what `stepped` finds counts here."""

    def stepped(self) -> None:
        now = self.record.clock()
        for line in list(self._flights):
            if not line.open or line.life != self.record.life:
                del self._flights[line]
            elif line.honest:
                self._look(line, self._flights[line], now)

    def _look(self, line: Line, flight: _Flight, now: float) -> None:
        """Whether the oldest that is unacked was sent again when it was due."""
        if line.blocked is not None or flight.ever_nacked or not flight.written:
            return
        seq, written = next(iter(flight.written.items()))
        if not self._waits(line, seq):
            return
        begun = max(flight.progress_at, flight.last_try) - written
        due = next((interval for interval in self._intervals if interval > begun + 1e-9), math.inf)
        latest = max(written + due, line.free_since, self.record.jumped_at) + SLACK
        if now > latest:
            super().fail(f"{line}: {seq}, written at {written:.3f}, was due again at {written + due:.3f}")


class _Flight:
    """What one connection has in flight, as far as redelivery goes."""

    def __init__(self, now: float) -> None:
        self.written: dict[int, float] = {}
        self.tries: dict[int, int] = {}
        self.nacked: set[int] = set()
        self.ever_nacked = False
        self.acked = 0
        self.progress_at = now
        self.last_try = -math.inf


class ReplayStarts(Checker):
    """After a resume, what was missed begins to come at once."""

    invariant = "a replay begins within 250 ms"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._awaited: dict[Line, float] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            self._awaited[line] = self.record.clock()
        elif isinstance(frame, wire.EventFrame | wire.GapFrame | wire.Live):
            self._awaited.pop(line, None)

    def stepped(self) -> None:
        for line, since in list(self._awaited.items()):
            if not line.open or line.blocked is not None:
                del self._awaited[line]
            elif self.record.clock() > max(since, self.record.jumped_at) + SLACK:
                self.fail(f"{line}: welcomed at {since:.3f}, and nothing came")
                del self._awaited[line]


IN_TIME = (Prompt, Heartbeats, Repetition, RepetitionInTime, ReplayStarts)
"""All of them."""
