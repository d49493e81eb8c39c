"""What a client tells about itself: its state, and its figures."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

StateName: TypeAlias = Literal["connecting", "catching_up", "live", "offline", "ended"]


@attrs.frozen(kw_only=True)
class ClientState:
    """Where a client stands.

    Attributes:
      name: ``connecting``: an attempt is under way; ``catching_up``: connected, what was missed is coming; ``live``:
        what comes is new; ``offline``: waiting for the next attempt; ``ended``: for good.
      behind: how many seqs the server has told of that have not arrived.
      retry_at: offline: when the next attempt is due, on Trio's clock; else None.
      retry_in: the same, in seconds from the moment that this value was made.
      reason: offline and ended: why, in a few words; else empty.
    """

    name: StateName
    behind: int = 0
    retry_at: float | None = None
    retry_in: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        return self.name


@attrs.frozen(kw_only=True)
class ClientStatistics:
    """What a client has counted since it began.

    Attributes:
      events: received for the first time.
      duplicates: received again and not given again.
      gaps: received, resets among them.
      given: handed to the application, again after a `nack` too.
      nacks: handed back by it.
      acks: sent; each stands for any number of events.
      connections: how many were welcomed.
      reconnects: of these, how many followed one that was lost.
      attempts: to connect, whatever came of it.
      resets: how often the server could not resume.
      violations: how often the server broke the protocol.
      queued, queued_bytes: received and not given yet, at the moment.
      recoveries: how often a loss of the connection was made good.
      last_recovery, longest_recovery: in seconds, from the cut noticed to everything processed up to the head that the
        server's welcome told; None before the first.
    """

    events: int
    duplicates: int
    gaps: int
    given: int
    nacks: int
    acks: int
    connections: int
    reconnects: int
    attempts: int
    resets: int
    violations: int
    queued: int
    queued_bytes: int
    recoveries: int
    last_recovery: float | None
    longest_recovery: float | None


@attrs.define
class Figures:
    """The counters behind `ClientStatistics`; plain integers."""

    events: int = 0
    duplicates: int = 0
    gaps: int = 0
    given: int = 0
    nacks: int = 0
    connections: int = 0
    reconnects: int = 0
    attempts: int = 0
    resets: int = 0
    violations: int = 0
    recoveries: int = 0
    last_recovery: float | None = None
    longest_recovery: float | None = None

    def recovered(self, seconds: float) -> None:
        """A recovery took so long."""
        self.recoveries += 1
        self.last_recovery = seconds
        self.longest_recovery = max(seconds, self.longest_recovery or 0.0)
