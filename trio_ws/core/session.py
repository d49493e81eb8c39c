"""A session: one tab's cursor over its user's log. What to send next, what was acked, what to send again and when.

    base <= acked <= cursor <= head of the mailbox, and cursor <= top

    base     what lies at or below was never this session's
    acked    processed by the client: everything up to here (cumulative)
    cursor   handed to the present connection: everything up to here, as events or in gaps
    top      the highest that any connection of this session was handed

A connection that comes (`attach`) sets the cursor; `take` moves it on and returns frames; `ack` settles behind it;
`detach` leaves the session parked. What lies between acked and cursor is in flight: when the connection goes, it is sent
again by the next one, from where the client says it is.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from . import wire
from .books import Books
from .confirmations import Confirmations
from .entry import EXPIRED, SETTLED, SUPERSEDED, Entry
from .gaps import Run
from .mailbox import Mailbox


PATIENCE = 5.0
"""Seconds that a connection has left after the last try of the redelivery schedule."""


class Impossible(Exception):
    """A frame that asks for the impossible; it is answered with an error, and changes nothing."""


class Session:
    """One session of one user.

    Args:
      id: its unguessable name.
      box: the mailbox that it reads.
      base: the seq that it starts after.
      books, confirmations: where its figures are counted.
      retry_intervals: seconds after its first writing at which an unacked tracked event is sent again, rising.

    Attributes:
      link: the connection at the moment, opaque here; None while parked.
      parked_at: when it was parked; meaningful while `link` is None.
      cut_at: when the last connection went, or was last heard of where that was noticed later.
      blocked: the connection's transport takes nothing at the moment, since then; None while it does.
      live_at: the seq at which the client has caught up and is told so; None once it was.
      skipped: superseded entries that it was told of in a gap, by first seq, so that its acks don't confirm them.
      context: what the shell keeps with it: the identity that was authenticated, answers to messages.
    """

    __slots__ = (
        "_attempts",
        "_attempts_of",
        "_books",
        "_confirmations",
        "_intervals",
        "_last_progress",
        "_last_try",
        "_merged",
        "_nacked",
        "_redelivered",
        "_settled_upto",
        "_unacked",
        "acked",
        "base",
        "blocked",
        "box",
        "context",
        "created_at",
        "cut_at",
        "cursor",
        "id",
        "link",
        "live_at",
        "parked_at",
        "plain",
        "skipped",
        "top",
    )

    def __init__(
        self,
        id: str,
        box: Mailbox,
        base: int,
        *,
        books: Books,
        confirmations: Confirmations,
        retry_intervals: tuple[float, ...],
        now: float,
        plain: bool = False,
    ) -> None:
        self.id = id
        self.box = box
        self.base = self.acked = self.cursor = self.top = base
        self.plain = plain
        self.link: Any = None
        self.context: Any = None
        self.created_at = self.parked_at = self.cut_at = now
        self.blocked: float | None = None
        self.live_at: int | None = None
        self.skipped: set[int] = set()
        self._books = books
        self._confirmations = confirmations
        self._intervals = retry_intervals
        self._settled_upto = 0
        self._unacked: deque[tuple[int, float]] = deque()
        self._merged: dict[int, int] = {}
        self._nacked: dict[int, float] = {}
        self._redelivered: dict[int, int] = {}
        self._attempts = self._attempts_of = 0
        self._last_try = self._last_progress = -math.inf

    # -- coming and going

    def attach(self, link: Any, position: int, now: float, *, skip_confirmed: bool = False) -> None:
        """A connection takes the session over; it goes on from `position`.

        Args:
          link: the connection.
          position: the last seq that the client has accounted for; what was acked already is not sent again.
          skip_confirmed: what another session confirmed until now is left out, as a gap (``from: "pending"``).
        """
        self.link = link
        self.cursor = self.box.boundary(max(position, self.acked))
        self.top = max(self.top, self.cursor)
        self.box.sent_high = max(self.box.sent_high, self.cursor)
        self.live_at = None if self.plain else self.box.head
        self._settled_upto = self.box.head if skip_confirmed else 0
        self.blocked = None
        self._forget_flight(now)

    def detach(self, now: float) -> None:
        """The connection is gone: the session is parked, and what was in flight is unacked."""
        self.link = None
        self.parked_at = now
        self.blocked = None
        self.box.relief_dry = False
        self._forget_flight(now)

    def _forget_flight(self, now: float) -> None:
        self._unacked.clear()
        self._merged.clear()
        self._nacked.clear()
        self._redelivered.clear()
        self._attempts = self._attempts_of = 0
        self._last_try = -math.inf
        self._last_progress = now

    @property
    def dormant(self) -> bool:
        """Parked or stalled: it may not hold up a publisher who needs room."""
        return self.link is None or self.blocked is not None

    def silent(self, now: float, after: float) -> bool:
        """Whether it owes an answer: events are in flight, and none was acked for `after` seconds; or it is blocked."""
        return self.blocked is not None or (self.cursor > self.acked and now - self._last_progress > after)

    @property
    def pending(self) -> bool:
        """Whether `take` has something to give."""
        return self.cursor < self.box.head or self.live_at is not None

    def owes(self, entry: Entry) -> bool:
        """Whether this session is still to process `entry`."""
        return entry.seq > self.acked and entry.first > self.base and entry.first not in self.skipped

    # -- what to send

    def take(self, now: float, max_bytes: int) -> list[bytes]:
        """The next frames to send, in order, and move the cursor over them.

        Args:
          now: the time on the hub's clock.
          max_bytes: about how much; at least one frame is taken where there is one.
        """
        box, frames, size = self.box, list[bytes](), 0
        entries, head, seq = box.entries, box.head, self.cursor + 1
        while seq <= head and size < max_bytes:
            entry = entries.get(seq)
            if (
                entry is None
                or entry.superseded
                or entry.expires_at <= now
                or seq <= self.acked
                or seq <= self._settled_upto
            ) and (after := self._take_gaps(seq, now, frames)) > seq:
                seq = after
                continue
            assert entry is not None
            self.cursor = entry.seq
            frame = self._delta_frame(entry, head, now) if entry.merge else self._frame(entry)
            if entry.tracked:
                self._unacked.append((entry.seq, now))
                if entry.first_sent is None:
                    self._confirmations.written(entry, now)
            entry.first_sent = entry.first_sent or now
            frames.append(frame)
            size += len(frame)
            seq = self.cursor + 1
            if self.cursor > self.top:
                self.top = self.cursor
                self._books.sent += 1
            else:
                self._books.redelivered += 1
        self.cursor = seq - 1
        self.top = max(self.top, self.cursor)
        box.sent_high = max(box.sent_high, self.cursor)
        if self.live_at is not None and self.cursor >= self.live_at:
            self.live_at = None
            frames.append(wire.live(self.cursor))
        return frames

    def _frame(self, entry: Entry, retry: int = 0) -> bytes:
        if self.plain:
            return wire.plain_event(entry.tail)
        return wire.event_frame(
            entry.seq,
            entry.tail,
            critical=entry.critical,
            truncated=entry.truncated,
            retry=retry,
            merged_from=entry.first if entry.first != entry.seq else 0,
        )

    def _delta_frame(self, entry: Entry, upto: int, now: float, retry: int = 0) -> bytes:
        """The frame of a delta and of those right after it that wait as well, joined; the cursor moves over them."""
        box = self.box
        run = box.neighbours(entry, upto)
        last = run[-1]
        if last is entry:
            return self._frame(entry, retry)
        cached = box.joined_cache
        if cached is None or cached[:2] != (entry.first, last.seq):
            cached = box.joined_cache = (entry.first, last.seq, box.joined_tail(run)[0])
        if not retry:
            self._books.merged += len(run) - 1
            self._merged[last.seq] = entry.first
            self.cursor = last.seq
            for delta in run:
                delta.first_sent = delta.first_sent or now
        if self.plain:
            return wire.plain_event(cached[2])
        truncated = any(delta.truncated for delta in run)
        return wire.event_frame(
            last.seq, cached[2], truncated=truncated, retry=retry, merged_from=entry.first
        )

    def _take_gaps(self, seq: int, now: float, frames: list[bytes]) -> int:
        """Put what this session will not get, from `seq` on, into gap frames; returns the first seq after."""
        gap: Run | None = None
        while seq <= self.box.head:
            run = self._missing(seq, now)
            if run is None:
                break
            if gap is not None and gap.reason == run.reason:
                gap.absorb(run)
            else:
                self._put_gap(gap, frames)
                gap = run
            seq = run.last + 1
        self._put_gap(gap, frames)
        return seq

    def _put_gap(self, gap: Run | None, frames: list[bytes]) -> None:
        if gap is not None and not self.plain:
            frames.append(wire.gap(gap.first, gap.last, gap.reason, gap.lost, gap.critical))

    def _missing(self, seq: int, now: float) -> Run | None:
        """The run of seqs from `seq` on that this session is not given, and why; None where the next is an event."""
        entry = self.box.entries.get(seq)
        if entry is None:
            run = self.box.gone.at(seq)
            assert run is not None, f"seq {seq} is neither held nor gone"
            return run
        lost = {entry.type: entry.weight}
        if seq <= self.acked or (seq <= self._settled_upto and entry.confirmed_at is not None):
            return Run(seq, entry.seq, SETTLED, lost, 0)
        if entry.superseded:
            self.skipped.add(entry.first)
            last = entry.seq
            self.box.disown(entry.first)
            return Run(seq, last, SUPERSEDED, lost, 0)
        if entry.expires_at <= now and not entry.settled:
            reason = SETTLED if entry.confirmed_at is not None else EXPIRED
            critical = entry.weight if entry.critical and reason == EXPIRED else 0
            self.box.expire(entry)
            return Run(seq, entry.seq, reason, lost, critical)
        return None

    # -- what came back

    def ack(self, seq: int, now: float) -> bool:
        """The client processed everything up to `seq`.

        Returns: whether that was news.

        Raises:
          Impossible: `seq` is above what was sent on this session; nothing has changed.
        """
        if seq > self.top:
            raise Impossible(f"ack {seq} is above what was sent ({self.top})")
        low = self.acked
        if seq <= low:
            return False
        self.acked = seq
        confirmed = self.box.acked(self, low, seq, now)
        self._confirmations.settle(confirmed, now)
        self._last_progress = now
        unacked = self._unacked
        while unacked and unacked[0][0] <= seq:
            unacked.popleft()
        if self._merged:
            self._merged = {last: first for last, first in self._merged.items() if last > seq}
        if self._redelivered or self._nacked:
            self._redelivered = {n: tries for n, tries in self._redelivered.items() if n > seq}
            self._nacked = {n: due for n, due in self._nacked.items() if n > seq}
        return True

    def ack_sent(self, now: float) -> None:
        """A plain client confirms by being sent to."""
        if self.cursor > self.acked:
            self.ack(self.cursor, now)

    def nack(self, seq: int, now: float) -> None:
        """The client's handler failed on `seq`: `redeliver` sends it again, at once the first time, then after a retry interval.

        Raises:
          Impossible: `seq` was not sent on this connection, or was acked; or it is no longer held.
        """
        if not self.acked < seq <= self.cursor:
            raise Impossible(f"nack {seq}: not in flight")
        if self._in_flight(seq) is None:
            raise Impossible(f"nack {seq}: no longer held")
        tries = self._redelivered.get(seq, 0)
        delay = 0.0 if tries == 0 else self._intervals[min(tries, len(self._intervals)) - 1]
        self._nacked[seq] = now + delay
        self._last_progress = now

    def _in_flight(self, seq: int) -> Entry | None:
        """The held entry that was sent as `seq`, or the first of the deltas that were."""
        entry = self.box.entries.get(self._merged.get(seq, seq))
        if entry is not None and seq in self._merged and self.box.neighbours(entry, seq)[-1].seq != seq:
            return None
        return entry

    # -- sending again

    def deadline(self) -> float:
        """When `redeliver` or `exhausted` has something to say next; infinity where nothing is unacked."""
        due = min(self._retry_at(), self._give_up_at())
        return min(due, *self._nacked.values()) if self._nacked else due

    def redeliver(self, now: float) -> list[bytes]:
        """The frames that are due to be sent again: what was nacked, and the oldest unacked tracked event on its schedule."""
        frames = []
        for seq in [seq for seq, due in self._nacked.items() if due <= now]:
            del self._nacked[seq]
            if (entry := self._in_flight(seq)) is not None:
                frames.append(self._again(entry, seq, now))
        if not self.plain and now >= self._retry_at():
            seq, written = self._unacked[0]
            due = sum(interval <= now - written for interval in self._intervals)
            self._attempts = max(due, self._attempts + 1)
            frames.append(self._again(self.box.entries[seq], seq, now))
        return frames

    def exhausted(self, now: float) -> bool:
        """Whether this connection acked nothing through the whole schedule, and `PATIENCE` beyond."""
        return self._give_up_at() <= now

    def _again(self, entry: Entry, seq: int, now: float) -> bytes:
        self._last_try = now
        self._books.redelivered += 1
        self._redelivered[seq] = retry = self._redelivered.get(seq, 0) + 1
        return self._delta_frame(entry, seq, now, retry) if seq in self._merged else self._frame(entry, retry)

    def _retry_at(self) -> float:
        """When the oldest unacked tracked event is to be sent again; infinity where none is, or its tries are used up."""
        unacked = self._unacked
        while unacked and unacked[0][0] not in self.box.entries:
            unacked.popleft()
        if not unacked:
            return math.inf
        seq, written = unacked[0]
        if self._attempts_of != seq:
            # What came due while an older one was the oldest is passed over, not made up for.
            since = max(self._last_progress, written) - written
            self._attempts_of = seq
            self._attempts = sum(interval <= since for interval in self._intervals)
        if self._attempts >= len(self._intervals):
            return math.inf
        return written + self._intervals[self._attempts]

    def _give_up_at(self) -> float:
        """When a connection that acks nothing is to be closed; infinity while there are tries left."""
        if self._retry_at() != math.inf or not self._unacked:
            return math.inf
        written = self._unacked[0][1]
        return max(written + self._intervals[-1], self._last_try, self._last_progress) + PATIENCE
