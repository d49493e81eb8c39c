"""The invariants on the real client: it acks and nacks in time, keeps its place, and comes back when it should."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

from ...client import ClientState
from ...core import wire
from ...event import Event
from .record import Record
from .sight import Checker, Line, Published

STABLE_AFTER: Final = 5.0
"""Seconds of a stable connection after which the schedule of attempts begins anew."""

GOING: Final = "the server is going away"
SENT_AWAY: Final = (GOING, "connections are taken")
"""What a server says that also says when to come back."""

TOLD: Final = (0.5, 5.0)
"""From what to what, in seconds, a server says when to come back."""

WHEN_REFUSED: Final = (1.0, 5.0)
"""Seconds after which one who was refused may well be served, whoever it is."""

ROUNDING: Final = 1e-6


@attrs.frozen
class _Due:
    """Something that a client has to say by `at`, on a connection that stood when it came up."""

    at: float
    line: Line
    seq: int
    nack: bool


class Duties(Checker):
    """What a client owes it has said, by the time that it answers a ping which came after that was due."""

    invariant = "a client says in time what it has processed, and what it failed on"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._lines: dict[str, Line] = {}
        self._pings: dict[Line, deque[float]] = {}
        self._due: dict[str, list[_Due]] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome) and line.honest and line.acks:
            self._lines[line.client] = line
            self._pings[line] = deque()
            self._due.pop(line.client, None)
        elif isinstance(frame, wire.ServerPing) and line in self._pings:
            self._pings[line].append(self.record.clock())

    def processed(self, client: str, event: Published, seen: Event) -> None:
        line = self._lines.get(client)
        if line is not None and line.welcome is not None and line.welcome.epoch == event.epoch:
            delay = line.welcome.ack.delay
            self._owe(_Due(self.record.clock() + delay, line, seen.seq, nack=False))

    def handed_back(self, client: str, seen: Event) -> None:
        line, event = self._lines.get(client), self.record.events.get(seen.payload["n"])
        if line is None or line.welcome is None or event is None:
            return
        if event.epoch == line.welcome.epoch and seen.seq <= line.cursor:
            self._owe(_Due(self.record.clock(), line, seen.seq, nack=True))

    def _owe(self, due: _Due) -> None:
        self._due.setdefault(due.line.client, []).append(due)

    def acked(self, line: Line, seq: int) -> None:
        if owed := self._due.get(line.client):
            self._due[line.client] = [due for due in owed if due.seq > seq]

    def nacked(self, line: Line, seq: int) -> None:
        if owed := self._due.get(line.client):
            self._due[line.client] = [due for due in owed if due.seq != seq or not due.nack]

    def heard(self, line: Line, frame: wire.ClientFrame | wire.Mistake) -> None:
        pings = self._pings.get(line)
        if not pings or not isinstance(frame, wire.Pong):
            return
        asked = pings.popleft()
        for due in self._due.get(line.client, ()):
            if due.line is line and due.at < asked:
                what = "failed on" if due.nack else "has processed"
                self.fail(
                    f"{line} {what} {due.seq}, was to say so by {due.at:.3f}, and answers the ping of {asked:.3f}"
                )
                return

    def went(self, line: Line, silent: bool) -> None:
        self._pings.pop(line, None)
        if self._lines.get(line.client) is line:
            del self._lines[line.client]
            self._due.pop(line.client, None)


class Place(Checker):
    """A client that comes back goes on from where it was."""

    invariant = "a client keeps its place"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._at: dict[tuple[str, str], int] = {}
        self._moved_at: dict[str, float] = {}
        self._state: dict[str, str] = {}

    def state(self, life: str, state: ClientState) -> None:
        self._state[life.rpartition(" ")[0]] = state.name

    def processed(self, client: str, event: Published, seen: Event) -> None:
        where = (client, event.epoch)
        self._moved_at[client] = self.record.clock()
        self._at[where] = max(seen.seq, self._at.get(where, 0))

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        for where in [where for where in self._at if where[0] == client]:
            del self._at[where]
        self._at[client, epoch] = seq

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if not isinstance(frame, wire.Welcome) or not line.honest:
            return
        at = self._at.get((line.client, frame.epoch))
        if at is None or self._moved_at.get(line.client, -math.inf) > line.ask.at:
            return  # while it was found out who this is, the client has gone on over another connection
        if self._state.get(line.client, "connecting") != "connecting":
            return  # its hello was held up on the way, on a connection that the client has long given up
        assert self.record.hub is not None
        box = self.record.hub.engine.buffer.mailboxes[line.user]
        if line.ask.session is None and line.ask.epoch is None:
            self.fail(f"{line} is at {at}, and begins a session anew")
        elif frame.seq < box.boundary(min(at, box.head)):
            self.fail(f"{line} is at {at}, and goes on from {frame.seq}")


class ComesBack(Checker):
    """A client that is offline tries again when the schedule says so, or the server."""

    invariant = "clients come back in time"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._tries: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._moments: set[float] = set()

    def state(self, life: str, state: ClientState) -> None:
        now = self.record.clock()
        if state.name == "catching_up":
            self._since[life] = now
        elif state.name == "offline":
            if now - self._since.pop(life, now) >= STABLE_AFTER:
                self._tries[life] = 0
            tries = self._tries[life] = self._tries.get(life, 0) + 1
            self._look(tries, state.reason, -1.0 if state.retry_in is None else state.retry_in)

    def _look(self, tries: int, reason: str, retry_in: float) -> None:
        sent_away = any(words in reason for words in SENT_AWAY)
        # A server that goes away may have said when, and the connection have broken before it was closed.
        allowed = [TOLD] if sent_away else [_delays(tries), TOLD]
        if not any(low - ROUNDING <= retry_in <= high + ROUNDING for low, high in allowed):
            self.fail(f"try {tries} is to come in {retry_in} s ({reason})")
        if GOING in reason and all(abs(retry_in - fixed) > ROUNDING for fixed in WHEN_REFUSED):
            if retry_in in self._moments:
                self.fail(f"several are to come at once, in {retry_in} s ({reason})")
            self._moments.add(retry_in)


def _delays(tries: int) -> tuple[float, float]:
    """From what to what the delay before this attempt, from 1, may be, in seconds."""
    if tries <= 3:
        delay = (0.1, 0.5, 1.0)[tries - 1]
        return 0.95 * delay, 1.05 * delay
    return 0.0, min(20.0, 2.0 ** (tries - 3))


OF_CLIENTS = (Duties, Place, ComesBack)
"""All of them."""
