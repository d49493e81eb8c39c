"""What of a hub's state is durable, as plain records: what a commit writes, and what is read again after a restart.

Times in records are seconds since the Unix epoch: the hub's clock means nothing to the next process.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import attrs

from .gaps import Run


class EventRecord(NamedTuple):
    """One entry of a log.

    Attributes:
      first, seq: the seqs that it stands for, both inclusive.
      priority: 0 to 3, LOW to CRITICAL.
      payload: its JSON.
      expires: when its time to live is over; None for never.
      owned_id: the id is the publisher's own key.
      confirmed: a client has processed it.
      run: the agent's run that it is part of.
    """

    user: str
    first: int
    seq: int
    id: str
    type: str
    priority: int
    payload: bytes
    ts: float
    expires: float | None
    key: str | None
    merge: bool
    tracked: bool
    truncated: bool
    owned_id: bool
    confirmed: bool
    run: str | None = None


class Removal(NamedTuple):
    """The entries of a log whose `first` is from `first` to `last` have left it.

    Attributes:
      state: what became of them.
      owned_ids: some of them had keys of their publishers' own, which are to be remembered.
    """

    user: str
    first: int
    last: int
    state: str
    owned_ids: bool


class SessionRecord(NamedTuple):
    """One session of a client that speaks the protocol.

    Attributes:
      skipped: the first seqs of entries that its acks say nothing of.
      parked: since when; None while it is connected.
    """

    session: str
    user: str
    base: int
    acked: int
    skipped: tuple[int, ...]
    created: float
    parked: float | None


class UserRecord(NamedTuple):
    """One user's log as a whole.

    Attributes:
      head: the newest seq that is accounted for.
      reserved: seqs up to here may have been shown to somebody: none of them is given to another event.
      confirmed: everything up to here is confirmed or gone.
      due: when something of it expires next: an event, a session, a run; None where nothing does.
      partial: events that are not critical were not written.
      gone: what was lost of it, without what had settled; None where that is as it was.
      rest: the first seq of what is in the store only, behind what is in memory; 0 where nothing is.
    """

    user: str
    epoch: str
    head: int
    reserved: int
    confirmed: int
    due: float | None
    partial: bool
    gone: tuple[Run, ...] | None
    rest: int = 0


class KeyRecord(NamedTuple):
    """An idempotency key of what has left the log: at which seq it was, and what became of it."""

    id: str
    seq: int
    state: str


class RevokedRecord(NamedTuple):
    """A user whose credentials are taken only if they were issued later than `since`, or it is `until`."""

    user: str
    since: float
    until: float


class RunRecord(NamedTuple):
    """One run of an agent; the events of it that its user's log holds beyond are to be folded in.

    Attributes:
      open: it has had no terminal event.
      lease: seconds for which it outlives its publisher's silence; None where a scope of the process ran it.
      state: JSON: where it stands, and up to which seq.
    """

    user: str
    run: str
    open: bool
    lease: float | None
    state: bytes


@attrs.define
class Batch:
    """What one commit writes, all of it or nothing. To write it once more changes nothing.

    A store takes it in this order: `closed`, `removed`, then the rest.

    Attributes:
      closed: users of whom nothing is kept any more.
      removed: what has left the logs.
      events: what is new in them.
      confirmed: entries that were written before and are confirmed above `UserRecord.confirmed`: user and first seq.
      ended: sessions that are over: user and session.
      keys: of what was never written and has left the logs: user and key. Its user is known, or among `users`.
      revoked: users who are, or are so anew. Of others, a store may forget those whose time was over by then.
      forgotten: runs of which nothing is kept any more: user and run.
    """

    closed: list[str] = attrs.field(factory=list)
    removed: list[Removal] = attrs.field(factory=list)
    events: list[EventRecord] = attrs.field(factory=list)
    confirmed: list[tuple[str, int]] = attrs.field(factory=list)
    users: list[UserRecord] = attrs.field(factory=list)
    sessions: list[SessionRecord] = attrs.field(factory=list)
    ended: list[tuple[str, str]] = attrs.field(factory=list)
    keys: list[tuple[str, KeyRecord]] = attrs.field(factory=list)
    revoked: list[RevokedRecord] = attrs.field(factory=list)
    runs: list[RunRecord] = attrs.field(factory=list)
    forgotten: list[tuple[str, str]] = attrs.field(factory=list)


@attrs.frozen
class KeptRest:
    """What a store knows of the rest of a log, without reading it.

    Attributes:
      lesser: how many events of it are not critical.
      due: when something of it expires first; None where nothing does.
      keys: its publishers' own keys, and the seqs that they are at.
    """

    lesser: int
    due: float | None
    keys: dict[str, int]


@attrs.frozen(kw_only=True)
class Part:
    """Which events of a rest are asked for: from `first` to `last`, at most `most`, in order.

    Attributes:
      size: about how many bytes of payload; at least one event.
      id: only those of this id.
      mortal: only those that expire; the first to do so first.
      lesser: only those that are not critical; those of the lowest priority first.
    """

    first: int
    last: int
    most: int
    size: float = math.inf
    id: str | None = None
    mortal: bool = False
    lesser: bool = False


@attrs.define
class Kept:
    """What a store holds of one user.

    Attributes:
      user: its log as a whole; `gone` is never None.
      events: what is in it before its rest, in order.
      rest: of what is behind that; None where nothing is.
      keys: of what has left it, the oldest first.
      damaged: what could not be read and was set aside, as runs with reason ``reset``.
    """

    user: UserRecord
    events: list[EventRecord] = attrs.field(factory=list)
    sessions: list[SessionRecord] = attrs.field(factory=list)
    keys: list[KeyRecord] = attrs.field(factory=list)
    damaged: list[Run] = attrs.field(factory=list)
    rest: KeptRest | None = None
    runs: list[RunRecord] = attrs.field(factory=list)
