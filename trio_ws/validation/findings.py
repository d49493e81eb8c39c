"""What a validation has seen so far, raw: the phases write it, the requirements and the report read it.

It can be read at any time, so that one that is interrupted tells what it has measured. Times are in seconds since
`began`, or lengths.
"""

from __future__ import annotations

from typing import Any

import attrs

from .journal import Account, Cut, Journal, Sent, total
from .plan import Plan


@attrs.frozen(kw_only=True)
class Sample:
    """A look at a server.

    Attributes:
      events: held in its buffer.
      fullest: held for the user who has the most of them, of those who are away; None where nobody looked.
      dropped: not critical, and gone to make room, since the server began; None where it does not tell.
      memory: bytes.
    """

    at: float
    events: int
    fullest: int | None = None
    dropped: int | None = None
    memory: int | None = None


@attrs.define
class Side:
    """What was seen of one server.

    Attributes:
      journals: one for each user who watched.
      samples: in order.
      confirmations: seconds from acceptance to confirmation, as the server told its publishers: (when, how long).
      stats: its figures at the end.
      clients: what the clients have counted, added up.
      cpu: seconds of CPU that it used.
    """

    journals: list[Journal] = attrs.field(factory=list)
    samples: list[Sample] = attrs.field(factory=list)
    confirmations: list[tuple[float, float]] = attrs.field(factory=list)
    stats: dict[str, Any] = attrs.field(factory=dict)
    clients: dict[str, int] = attrs.field(factory=dict)
    cpu: float | None = None

    @property
    def account(self) -> Account:
        """What became of all events."""
        return total(self.journals)

    @property
    def cuts(self) -> list[Cut]:
        """All drops of the load, in order of time."""
        return sorted((cut for journal in self.journals for cut in journal.cuts), key=lambda cut: cut.at)

    def sent(self, *phases: str) -> list[Sent]:
        """What was published in those phases, and accepted."""
        return [
            sent
            for journal in self.journals
            for sent in journal.sent.values()
            if sent.accepted and sent.phase in phases
        ]


@attrs.define
class Reuse:
    """What a session costs: µs of the server's CPU, and seconds until it has all that is held, one value a turn."""

    anew_cpu: list[float] = attrs.field(factory=list)
    resumed_cpu: list[float] = attrs.field(factory=list)
    anew_time: list[float] = attrs.field(factory=list)
    resumed_time: list[float] = attrs.field(factory=list)
    resumes: int = 0
    hits: int = 0

    def add(self, resumed: bool, cpu: float | None, seconds: float, *, sessions: int, hits: int) -> None:
        """One turn: so many sessions took so many seconds, and so many of the server's CPU in all."""
        costs, times = (self.resumed_cpu, self.resumed_time) if resumed else (self.anew_cpu, self.anew_time)
        if cpu is not None:
            costs.append(cpu / sessions * 1e6)
        times.append(seconds)
        if resumed:
            self.resumes += sessions
            self.hits += hits


@attrs.define(kw_only=True)
class Findings:
    """See the module's docstring.

    Attributes:
      plan: what was to be done.
      began: on Trio's clock; everything with a time has it on that clock.
      after, before: what was seen of trio-ws, and of the stock server.
      phases: when each began and ended; the end is None where it did not come to that.
      skipped: phases that were left out, and why.
      stuck_users: who was stuck.
      reuse: of sessions.
      config: the effective settings of the server; empty where it is not ours.
      arguments: that the server was given beside the usual ones.
      machine: what it ran on.
      interrupted: it was ended before its time.
    """

    plan: Plan
    began: float = 0.0
    after: Side = attrs.field(factory=Side)
    before: Side = attrs.field(factory=Side)
    phases: dict[str, tuple[float, float | None]] = attrs.field(factory=dict)
    skipped: dict[str, str] = attrs.field(factory=dict)
    stuck_users: set[str] = attrs.field(factory=set)
    reuse: Reuse = attrs.field(factory=Reuse)
    config: dict[str, Any] = attrs.field(factory=dict)
    arguments: tuple[str, ...] = ()
    machine: dict[str, str] = attrs.field(factory=dict)
    interrupted: bool = False

    def done(self, phase: str) -> bool:
        """Whether that phase came to its end."""
        return self.phases.get(phase, (0.0, None))[1] is not None
