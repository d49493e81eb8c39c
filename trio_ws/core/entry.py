"""One accepted event in a user's log, and the words for what becomes of it.

The life of an entry, and the one table of its states (`Entry.state` derives them; nothing stores them twice):

    state        is                                                      still in the log
    -----------  ------------------------------------------------------  ----------------
    held         accepted; no session was sent it yet                     yes
    sent         written to at least one session, confirmed by none       yes
    confirmed    acked by a session, still owed to another                yes
    settled      confirmed and owed to nobody: history                    until room or the TTL takes it
    merged       a delta that was joined into the one after it            as part of that one
    evicted      made room for another event, unconfirmed                 no
    expired      its time passed, unconfirmed                             no
    superseded   a later event of its type and key took its place         no
    moved        another process has the log, and what becomes of it      there, if it was durable
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

EVICTED: Final = "evicted"
EXPIRED: Final = "expired"
SUPERSEDED: Final = "superseded"
SETTLED: Final = "settled"
MOVED: Final = "moved"
RESET: Final = "reset"
"""Lost with a process that died: only ever the reason of a gap."""

# Retention classes, in the order in which entries go when room is needed. A critical event that is not settled
# is in none of them: it is firm.
CLASS_SETTLED: Final = 0
CLASS_SUPERSEDED: Final = 1
CLASS_LOW: Final = 2
CLASS_NORMAL: Final = 3
CLASS_HIGH: Final = 4
FIRM: Final = 5
CLASSES: Final = (CLASS_SETTLED, CLASS_SUPERSEDED, CLASS_LOW, CLASS_NORMAL, CLASS_HIGH)
GONE: Final = -1
"""What `Entry.line` is where it stands in no log: not yet, or not any more."""
SPILLED: Final = -2
"""What it is where the event is in the rest of its log, in a store only, or is on its way there."""


class Entry(msgspec.Struct, gc=False, eq=False):
    """One accepted event. Mutable, and touched only by the mailbox that holds it.

    The garbage collector does not know of entries: with some ten thousand held, looking at them again and again was a
    tenth of what an event cost. So nothing that an entry refers to may refer to it for good: it names its user, not
    its mailbox, and whoever adds a waiter takes it away again.

    Attributes:
      first, seq: the seqs it stands for, both inclusive; they differ when deltas were joined in the log.
      tail: its wire form from ``,"id"`` on: made once, shared by redeliveries and by a broadcast's users.
      size: what it counts for in the byte bounds: `tail` and `payload` as they were made.
      bare: its frame holds nothing but its seq and its tail, and nothing has to be noted when it is written.
      payload: the payload's JSON, kept apart only for deltas, which may yet be joined.
      accepted_at, expires_at: on the hub's clock, in seconds.
      retention: its class while it is not settled; `FIRM` for critical events.
      line: the retention class that it stands in as it is now, `FIRM` where it can't go; `GONE` outside of its log,
        `SPILLED` in its rest.
      user: whose log it is in; empty before.
      run: the agent's run that it is part of.
      stored: the store has it, or the commit under way will bring it there.
      tracked: confirmation is timed and redelivery happens; so for critical events and those with `confirm`.
      first_sent: when it was first written to a session, or None.
      settled_at, gone_at: when it settled, and when it left its log or was joined into another; None before.
      successor: the seq of the later event of its key, where it is superseded.
      into: the entry that it was joined into; None while it stands for itself.
      waiters: called without arguments, once, when it is confirmed or gone.
    """

    id: str
    type: str
    tail: bytes
    size: int
    bare: bool
    retention: int
    tracked: bool
    ts: float
    accepted_at: float
    expires_at: float = math.inf
    key: str | None = None
    merge: bool = False
    payload: bytes | None = None
    truncated: bool = False
    owned_id: bool = False
    run: str | None = None
    stored: bool = False

    first: int = 0
    seq: int = 0
    line: int = GONE
    user: str = ""
    settled: bool = False
    superseded: bool = False
    timed_out: bool = False
    first_sent: float | None = None
    confirmed_at: float | None = None
    settled_at: float | None = None
    gone_at: float | None = None
    successor: int = 0
    reason: str | None = None
    into: Entry | None = None
    waiters: list[Callable[[], None]] | None = None

    @property
    def critical(self) -> bool:
        """Never evicted unsettled, and marked on the wire."""
        return self.retention == FIRM

    @property
    def weight(self) -> int:
        """How many accepted events it stands for."""
        return self.seq - self.first + 1

    @property
    def state(self) -> str:
        """What became of it: a word of the table at the top of this file."""
        if self.into is not None:
            return "merged"
        if self.reason is not None:
            return self.reason
        if self.settled:
            return SETTLED
        if self.confirmed_at is not None:
            return "confirmed"
        return "sent" if self.first_sent is not None else "held"


def placeholder(id: str, seq: int, retention: int) -> Entry:
    """An entry in no log, for an event of which only the publisher's own key, and the seq, are known."""
    return Entry(
        id=id,
        type="",
        tail=b"",
        size=0,
        bare=False,
        retention=retention,
        tracked=False,
        ts=0.0,
        accepted_at=0.0,
        owned_id=True,
        first=seq,
        seq=seq,
    )
