"""The invariants on when things happen: nothing lies about, redelivery keeps its schedule, heartbeats come."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from ...core import wire
from ...core.closing import CloseCode
from ...core.flight import PATIENCE
from ...core.session import Session
from ...hub.attachment import LIVELY
from .record import Record
from .sight import Checker, Line, Published

SLACK = 0.25
"""Simulated seconds that something which is due may take."""

ROUNDING = 1e-6


class Prompt(Checker):
    """What was accepted is written at the end of its batch window, where the transport takes it."""

    invariant = "what can be sent is sent"

    def due(self) -> float:
        return min((late for late, _ in self._waiting()), default=math.inf) + ROUNDING

    def looked(self) -> None:
        now = self.record.clock()
        for late, line in self._waiting():
            if now > late:
                assert line.attachment is not None
                after = line.attachment.session.cursor
                self.fail(f"{line}: what comes after {after} was to be sent by {late:.3f}")

    def _waiting(self) -> Iterator[tuple[float, Line]]:
        """Each connection that is to be given something and can take it, and when that is late."""
        hub = self.record.hub
        assert hub is not None
        fresh = max(self.record.jumped_at, self.record.begun_at)
        for attachment in hub.engine.attachments:
            session = attachment.session
            if session.cursor >= session.box.head or session.blocked is not None:
                continue
            line = self.record.line_of(attachment)
            if line is not None and line.open:
                next_at, urgent_at = _waits_since(session)
                since = max(line.opened_at, line.free_since, fresh)
                yield (
                    min(max(next_at, since) + hub.config.batch_interval, max(urgent_at, since)) + SLACK,
                    line,
                )


def _waits_since(session: Session) -> tuple[float, float]:
    """When the next that a session is to be given was accepted, and the next that is not to wait for others."""
    box = session.box
    first = box.entries.get(session.cursor + 1)
    if first is None:  # a gap, and then maybe an event
        first = box.entries.get(box.gone.end_of(session.cursor + 1) + 1)
    urgent = (entry.accepted_at for entry in box.within(session.cursor, box.head) if entry.tracked)
    return (box.last_event_at if first is None else first.accepted_at), next(urgent, math.inf)


class Heartbeats(Checker):
    """The next frame comes when it was promised, where the transport takes it."""

    invariant = "heartbeats come in time"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._promised: dict[Line, float] = {}
        self._event_at: dict[tuple[str, str], float] = {}

    def accepted(self, event: Published) -> None:
        assert event.receipt is not None
        # Who broadcasts learns of it only when all have it.
        log, at = (event.user, event.epoch), event.receipt._entry.accepted_at
        self._event_at[log] = max(at, self._event_at.get(log, -math.inf))

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.welcome is not None:
            lively = (
                self.record.clock()
                < self._event_at.get((line.user, line.welcome.epoch), -math.inf) + LIVELY - SLACK
            )
            if isinstance(frame, wire.ServerPing) and lively and frame.next > line.welcome.heartbeat.active:
                self.fail(f"{line}: the next frame is promised in {frame.next} s, soon after an event")
            beat = frame.next if isinstance(frame, wire.ServerPing) else line.welcome.heartbeat.active
            self._promised[line] = self.record.clock() + beat

    def due(self) -> float:
        lates = (self._late(*item) for item in self._promised.items())
        return min(lates, default=math.inf) + ROUNDING

    def looked(self) -> None:
        now = self.record.clock()
        for line, promised in list(self._promised.items()):
            if not line.open or line.life != self.record.life:
                del self._promised[line]
            elif now > self._late(line, promised):
                self.fail(f"{line}: a frame was promised by {promised:.3f}")

    def _late(self, line: Line, promised: float) -> float:
        """When the next frame is late; never, as long as the transport takes nothing."""
        if line.blocked is not None:
            return math.inf
        return max(promised, line.free_since, self.record.jumped_at) + SLACK


class Credentials(Checker):
    """Who does not renew credentials is shown out when they run out, and not before."""

    invariant = "credentials hold as long as they say"

    def due(self) -> float:
        return min((late for late, _ in self._lates()), default=math.inf) + ROUNDING

    def looked(self) -> None:
        now = self.record.clock()
        for late, line in self._lates():
            if now > late:
                self.fail(f"{line} is open, and its credentials ran out at {line.until:.3f}")

    def _lates(self) -> Iterator[tuple[float, Line]]:
        """Each open connection, and when it is to have been shown out."""
        assert self.record.hub is not None
        for attachment in self.record.hub.engine.attachments:
            line = self.record.line_of(attachment)
            if line is not None and line.open:
                yield max(line.until, self.record.jumped_at) + SLACK, line

    def closed(self, line: Line, code: CloseCode, reason: str) -> None:
        if "expired" in reason and self.record.clock() < line.until - 1e-3:
            self.fail(f"{line} is closed for credentials that hold until {line.until:.3f}")


class Repetition(Checker):
    """The schedule of redelivery: not before it is due, not late, numbered, and only of what was sent."""

    invariant = "redelivery follows the schedule"
    _lenient = False

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._flights: dict[Line, _Flight] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            self._flights[line] = _Flight(self.record.clock())
        flight, now = self._flights.get(line), self.record.clock()
        if flight is None:  # it was told to close
            return
        if isinstance(frame, wire.GapFrame):
            flight.spared.update(range(frame.first, frame.last + 1))
        if not isinstance(frame, wire.EventFrame):
            return
        if frame.retry == 0:
            if line.cursor <= flight.acked:
                flight.progress_at = now  # nothing was in flight
            event = self.record.at(line, frame.seq)
            if event is not None and event.tracked:
                flight.written[frame.seq] = now
            return
        tries = flight.tries[frame.seq] = flight.tries.get(frame.seq, 0) + 1
        flight.tried_at = now
        if frame.retry != tries:
            self.fail(f"{line}: retry {frame.retry} of {frame.seq} is the {tries}th")
        oldest, due = self._next(line, flight)
        # What was handed back right before it is due is sent again for that reason first, and then for this.
        handed_back = now >= flight.nacked.get(frame.seq, math.inf)
        if frame.seq == oldest and now >= (due if handed_back else due - ROUNDING):
            flight.tried = max(self._passed(now - flight.written[oldest]), flight.tried + 1)
            if flight.nacked.get(frame.seq, math.inf) <= now:
                del flight.nacked[frame.seq]
        elif frame.seq in flight.nacked:
            if now < flight.nacked.pop(frame.seq) - ROUNDING:
                self.fail(f"{line}: {frame.seq}, nacked once more, is sent again without a pause")
        elif frame.seq not in flight.written:
            self.fail(f"{line}: {frame.seq} is sent again, and is neither tracked nor nacked")
        elif frame.seq != oldest:
            self.fail(f"{line}: {frame.seq} is sent again, and {oldest} is older")
        else:
            self.fail(f"{line}: {frame.seq} is sent again, and was due at {due:.3f}")

    def _next(self, line: Line, flight: _Flight) -> tuple[int, float]:
        """The oldest tracked event that is unacked and still in the log, and when it is to be sent again."""
        while flight.written:
            seq, written = next(iter(flight.written.items()))
            if self._lenient and (noticed := self._awake(line, flight.oldest_since)) > flight.oldest_since:
                flight.oldest, flight.oldest_since = 0, noticed
            if flight.oldest != seq:
                # What came due while an older one was the oldest is passed over.
                flight.oldest = seq
                flight.tried = self._passed(flight.oldest_since - written)
            left = self._intervals[flight.tried :]
            due = written + left[0] if left else math.inf
            if self._waits(line, seq):
                return seq, due
            del flight.written[seq]
            if self._lenient:  # that it has left the log may be noticed only when it would have been due
                flight.oldest_since = max(flight.oldest_since, self.record.clock(), min(due, math.inf))
        return 0, math.inf

    def _awake(self, line: Line, at: float) -> float:
        """When what is due `at` a time may be noticed: not while the transport takes nothing, nor while time stands."""
        if self.record.jumped_from <= at < self.record.jumped_at:
            at = self.record.jumped_at
        return line.free_since if line.blocked_from <= at < line.free_since else at

    def _passed(self, age: float) -> int:
        return sum(interval <= age for interval in self._intervals)

    def _waits(self, line: Line, seq: int) -> bool:
        """Whether the log still holds what was sent at `seq`."""
        assert self.record.hub is not None
        box = self.record.hub.engine.buffer.mailboxes.get(line.user)
        return box is not None and seq in box.entries

    def acked(self, line: Line, seq: int) -> None:
        flight = self._flights.get(line)
        if flight is None or line.attachment is None:
            return
        if flight.acked < seq <= line.attachment.session.top:
            self._next(line, flight)  # it may have become the oldest before this ack
            flight.acked = seq
            flight.oldest_since = flight.progress_at = self.record.clock()
            for sent in [sent for sent in flight.written if sent <= seq]:
                del flight.written[sent]
            for sent in [sent for sent in flight.nacked if sent <= seq]:
                del flight.nacked[sent]

    def nacked(self, line: Line, seq: int) -> None:
        flight = self._flights.get(line)
        if flight is None or line.attachment is None:
            return
        if not line.attachment.session.acked < seq <= line.cursor or seq in flight.spared:
            return
        tries = flight.tries.get(seq, 0)
        pause = self._intervals[min(tries, len(self._intervals)) - 1] if tries else 0.0
        flight.nacked[seq] = self.record.clock() + pause
        flight.progress_at = self.record.clock()

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        for line in list(self._flights):
            if not line.open or line.life != self.record.life:
                del self._flights[line]

    @property
    def _intervals(self) -> tuple[float, ...]:
        assert self.record.hub is not None
        return self.record.hub.config.retry_intervals


class RepetitionInTime(Repetition):
    """The other half of it: what is due is sent again within 250 ms."""

    invariant = "redelivery is in time"
    _lenient = True

    def fail(self, text: str) -> None:
        """Only what `stepped` finds counts here."""

    def due(self) -> float:
        lates = (late for item in self._flights.items() for late, _, _ in self._lates(*item))
        return min(lates, default=math.inf) + ROUNDING

    def looked(self) -> None:
        self.stepped()
        now = self.record.clock()
        for line, flight in self._flights.items():
            for late, seq, why in self._lates(line, flight):
                if now > late:
                    super().fail(f"{line}: {seq}, {why} by {late:.3f}")

    def _lates(self, line: Line, flight: _Flight) -> Iterator[tuple[float, int, str]]:
        """What is due again, and when that is late: the oldest that is unacked, and what was nacked."""
        if line.blocked is not None or not (flight.written or flight.nacked):
            return
        grace = max(line.free_since, self.record.jumped_at)
        oldest, due = self._next(line, flight)
        yield max(due, grace) + SLACK, oldest, "the oldest, was to be sent again"
        if oldest and due == math.inf:  # all its tries are used up
            begun = max(flight.written[oldest], flight.progress_at)
            last = max(begun + self._intervals[-1], flight.tried_at)
            yield max(last + PATIENCE, grace) + SLACK, oldest, "the oldest, was to end what acks nothing"
        for seq, due in flight.nacked.items():
            event = self.record.at(line, seq)
            # Of joined deltas, some may have gone.
            if event is not None and not event.delta and self._waits(line, seq):
                yield max(due, grace) + SLACK, seq, "nacked, was to be sent again"


class _Flight:
    """What one connection has in flight, as far as redelivery goes.

    Attributes:
      written: tracked events, and when each was first written to it, oldest first.
      tries: how often each was sent again.
      nacked: when what its client failed on is due again.
      acked: up to where it was acked.
      spared: what it was told in gaps, and not given.
      oldest, tried, oldest_since: the oldest of `written`, how many of its tries are used up, and since when it is.
      tried_at, progress_at: when the last try was; when the client last answered for something, or had nothing to.
    """

    def __init__(self, now: float) -> None:
        self.written: dict[int, float] = {}
        self.tries: dict[int, int] = {}
        self.nacked: dict[int, float] = {}
        self.acked = 0
        self.spared: set[int] = set()
        self.oldest = self.tried = 0
        self.oldest_since = self.progress_at = now
        self.tried_at = -math.inf


class Expiry(Checker):
    """What nobody has confirmed expires at its time and not before, and is not sent for the first time after it."""

    invariant = "what nobody confirms expires in time"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._due: list[tuple[float, int, str, Published]] = []
        self._live: list[Published] = []
        self._expired = 0

    def accepted(self, event: Published) -> None:
        if event.ttl < math.inf and event.receipt is not None and not event.receipt.duplicate:
            self._live.append(event)
            heapq.heappush(self._due, (self._time(event), event.token, event.user, event))

    def _time(self, event: Published) -> float:
        assert event.receipt is not None
        return event.receipt._entry.accepted_at + event.ttl

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if not isinstance(frame, wire.EventFrame) or frame.merged is not None or frame.retry:
            return
        event = self.record.at(line, frame.seq)
        if event is None or event.state not in ("held", "sent") or event.life != self.record.life:
            return
        if self.record.clock() > self._time(event) + ROUNDING:
            self.fail(f"{line} is sent {event}, which expired at {self._time(event):.3f}")

    def due(self) -> float:
        return self._due[0][0] + SLACK if self._due else math.inf

    def stepped(self) -> None:
        hub, now = self.record.hub, self.record.clock()
        assert hub is not None
        if hub.engine.books.expired != self._expired:
            self._expired = hub.engine.books.expired
            for event in self._live:
                if event.state == "expired" and now < self._time(event) - ROUNDING:
                    self.fail(f"{event} was to expire at {self._time(event):.3f}")
            self._live = [event for event in self._live if event.state in ("held", "sent", "confirmed")]
        if now < self.record.jumped_at + hub.config.cleanup_interval + SLACK:
            return
        while self._due and self._due[0][0] + SLACK < now:
            event = heapq.heappop(self._due)[3]
            if (
                event.life != self.record.life
                or event.state not in ("held", "sent")
                or event.entry.weight > 1
            ):
                continue  # what was joined with others lives as long as the last of them
            latest = self._time(event) + (0 if event.mortal else hub.config.cleanup_interval)
            if now > latest + SLACK:
                self.fail(f"{event} expired at {self._time(event):.3f}, and is still there")
            else:
                heapq.heappush(self._due, (latest, event.token, event.user, event))

    def life_over(self, events: list[Published]) -> None:
        self._due.clear()
        self._live.clear()
        self._expired = 0


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

    def due(self) -> float:
        lates = (self._late(*item) for item in self._awaited.items())
        return min(lates, default=math.inf) + ROUNDING

    def looked(self) -> None:
        for line, since in list(self._awaited.items()):
            if not line.open:
                del self._awaited[line]
            elif self.record.clock() > self._late(line, since):
                self.fail(f"{line}: welcomed at {since:.3f}, and nothing came")
                del self._awaited[line]

    def _late(self, line: Line, since: float) -> float:
        """When the first frame is late; never, as long as the transport takes nothing."""
        if line.blocked is not None:
            return math.inf
        return max(since, line.free_since, self.record.jumped_at) + SLACK


IN_TIME = (Prompt, Heartbeats, Credentials, Repetition, RepetitionInTime, Expiry, ReplayStarts)
"""All of them."""
