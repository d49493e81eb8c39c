"""The books: what became of every accepted event, as plain integers that must balance, and what the shell must be told.

``accepted = settled + held + evicted + expired + superseded + moved`` holds after every call into the core;
`Books.balanced` says so. A delta that was joined into a later one is counted where that one is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .entry import CLASSES, EVICTED, EXPIRED, FIRM, SUPERSEDED, Entry

if TYPE_CHECKING:
    from .mailbox import Mailbox


class Books:
    """Figures over all mailboxes of one hub, and the entries whose fate somebody waits to hear.

    Attributes:
      accepted … superseded: counters since the start, in accepted events.
      moved: held until their log became another process's, which has accepted them since; a counter, too.
      held: accepted and neither settled nor gone, now; `asleep` and `spilled` of them are in a store only: of logs of
        which nothing is here, and behind what is here.
      ever_spilled: how many were, since the start.
      landing_events, landing_bytes: what is on its way to be in a store only.
      events, bytes: what the logs hold now, settled history included (joined deltas are one event here).
      firm_events, firm_bytes: the part of it that can't make room: critical and not settled.
      history: settled entries that are still in a log.
      now: the time of the step that is under way, for what it does to entries.
      evicted_of: what was evicted, by retention class.
      critical_lost: critical events that went unconfirmed: each is an alert.
      resolved: entries with waiters that were confirmed or went; the shell takes them out and calls the waiters.
      rests: logs whose rest is to be looked at, in order: something may be read back, or let go; the shell takes them
        out.
      dead: critical entries that expired unconfirmed (dead letters), with their mailboxes and wire forms; the shell
        takes them out.
    """

    __slots__ = (
        "accepted",
        "asleep",
        "bytes",
        "critical_lost",
        "critical_preserved",
        "dead",
        "dead_letters",
        "duplicates",
        "events",
        "ever_spilled",
        "evicted",
        "evicted_of",
        "expired",
        "firm_bytes",
        "firm_events",
        "held",
        "history",
        "landing_bytes",
        "landing_events",
        "merged",
        "moved",
        "now",
        "overflows",
        "redelivered",
        "refused",
        "resolved",
        "rests",
        "sent",
        "settled",
        "spilled",
        "superseded",
    )

    def __init__(self) -> None:
        self.accepted = self.settled = self.held = self.evicted = self.expired = self.superseded = 0
        self.moved = 0
        self.events = self.bytes = self.firm_events = self.firm_bytes = self.history = 0
        self.merged = self.overflows = self.refused = self.duplicates = self.dead_letters = 0
        self.sent = self.redelivered = self.asleep = 0
        self.spilled = self.ever_spilled = self.landing_events = self.landing_bytes = 0
        self.critical_preserved = self.critical_lost = 0
        self.evicted_of = [0] * (len(CLASSES) + 1)
        self.now = 0.0
        self.resolved: list[Entry] = []
        self.dead: list[tuple[Mailbox, Entry, bytes]] = []
        self.rests: dict[Mailbox, None] = {}

    @property
    def balanced(self) -> bool:
        """Whether every accepted event is accounted for exactly once."""
        gone = self.evicted + self.expired + self.superseded + self.moved
        return self.accepted == self.settled + self.held + gone

    def accept(self, entry: Entry) -> None:
        """Book that `entry` came into a log."""
        self.accepted += 1
        self.held += 1
        self.events += 1
        self.bytes += entry.size
        if entry.retention == FIRM:
            self.firm_events += 1
            self.firm_bytes += entry.size

    def put_back(self, entry: Entry) -> None:
        """Book that `entry`, which is held, came into memory from a store."""
        self.events += 1
        self.bytes += entry.size
        if entry.retention == FIRM:
            self.firm_events += 1
            self.firm_bytes += entry.size

    def spill(self, entry: Entry) -> None:
        """Book that `entry` was accepted, and goes to a store only."""
        self.accepted += 1
        self.held += 1
        self.spilled += 1
        self.ever_spilled += 1
        self.landing_events += 1
        self.landing_bytes += entry.size

    def landed(self, events: int, size: int) -> None:
        """Book that so many events, and bytes, are in a store only, or will never get there."""
        self.landing_events -= events
        self.landing_bytes -= size

    def soften(self, entry: Entry) -> None:
        """Book that the critical `entry` ceased to be firm."""
        self.firm_events -= 1
        self.firm_bytes -= entry.size

    def settle(self, entries: int, weight: int) -> None:
        """Book that so many entries, that stand for `weight` events and were held until now, are history."""
        self.held -= weight
        self.settled += weight
        self.history += entries

    def lose(self, entry: Entry, reason: str) -> None:
        """Book that `entry`, held until now, went for `reason` without having settled."""
        weight = entry.seq - entry.first + 1
        self.held -= weight
        if reason == EVICTED:
            self.evicted += weight
            self.evicted_of[entry.retention] += weight
        elif reason == EXPIRED:
            self.expired += weight
        elif reason == SUPERSEDED:
            self.superseded += weight
        else:
            raise ValueError(f"an unsettled entry can't go as {reason!r}")
        if entry.retention == FIRM:
            self.critical_lost += weight
        entry.reason = reason
        if entry.waiters is not None:
            self.resolved.append(entry)

    def move(self, weight: int) -> None:
        """Book that events that were held are in another process's log."""
        self.held -= weight
        self.moved += weight
