"""A session: one tab's cursor over its user's log. What to send next, what was acked, what to send again and when.

    base <= acked <= top <= head of the mailbox, and base <= cursor <= top

    base     what lies at or below was never this session's
    acked    processed by the client: everything up to here (cumulative)
    cursor   handed to the present connection: everything up to here, as events or in gaps
    top      the highest that any connection of this session was handed

A connection that comes (`attach`) sets the cursor; `take` moves it on and returns frames; `ack` settles behind it;
`detach` leaves the session parked. What lies between acked and cursor is in flight: when the connection goes, it is
sent again by the next one, from where the client says it is. An ack of what an earlier connection was handed may
overtake the cursor; what lies between is not sent again.
"""

from __future__ import annotations

from typing import Any

from . import wire
from .books import Books
from .confirmations import Confirmations
from .entry import EXPIRED, SETTLED, SUPERSEDED, Entry
from .flight import Flight
from .gaps import Run
from .journal import ACKED, MERGED, NACKED, REDELIVERED, SENT, TOLD, Line
from .mailbox import Mailbox
from .run_view import FOLDED


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
      relayed: another node has the socket of that connection.
      connected_at: when the last connection took it over.
      parked_at: when it was parked; meaningful while `link` is None.
      cut_at: when the last connection went, or was last heard of where that was noticed later.
      blocked: the connection's transport takes nothing at the moment, since then; None while it does.
      live_at: the seq at which the client has caught up and is told so; None once it was.
      skipped: entries that it was not sent, by first seq: superseded ones that it was told of in a gap, and those that
        a client claimed to have. Its acks don't confirm them.
      unjoined: deltas of agents' runs up to here are not joined for it: a snapshot that it was sent may end among them.
      context: what the shell keeps with it: the identity that was authenticated, answers to messages.
    """

    __slots__ = (
        "_books",
        "_confirmations",
        "_flight",
        "_intervals",
        "_settled_upto",
        "_told",
        "_untold",
        "acked",
        "base",
        "blocked",
        "box",
        "connected_at",
        "context",
        "created_at",
        "cursor",
        "cut_at",
        "id",
        "link",
        "live_at",
        "parked_at",
        "plain",
        "relayed",
        "skipped",
        "top",
        "unjoined",
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
        self.relayed = False
        self.context: Any = None
        self.created_at = self.connected_at = self.parked_at = self.cut_at = now
        self.blocked: float | None = None
        self.live_at: int | None = None
        self.skipped: set[int] = set()
        self._books = books
        self._confirmations = confirmations
        self._intervals = retry_intervals
        self._settled_upto = self.unjoined = 0
        # Of which agents' runs this connection was sent a snapshot, and as of which seq; and of which it is to be.
        self._told: dict[str, int] = {}
        self._untold: list[str] = []
        self._flight = Flight(box.entries, retry_intervals, now)

    # -- coming and going

    def attach(
        self,
        link: Any,
        position: int,
        now: float,
        *,
        skip_confirmed: bool = False,
        snapshots: bool = False,
    ) -> None:
        """A connection takes the session over; it goes on from `position`.

        Args:
          link: the connection.
          position: the last seq that the client has accounted for; what was acked already is not sent again.
          skip_confirmed: what another session confirmed until now is left out, as a gap (``from: "pending"``).
          snapshots: it is given those of all agents' runs that are known, before all else (``from: "snapshot"``).
        """
        self.link = link
        self._books.now = now
        self.connected_at = now
        self.cursor = self.box.boundary(max(position, self.acked))
        # Of what it claims to have and was never sent, its acks say nothing.
        for entry in list(self.box.within(self.top, self.cursor)):
            self.skipped.add(entry.first)
            self.box.disown(entry.first)
        self.top = max(self.top, self.cursor)
        self.box.sent_high = max(self.box.sent_high, self.cursor)
        self.live_at = None if self.plain else self.box.ready
        self._settled_upto = self.box.head if skip_confirmed else 0
        self._told = {}
        self._untold = [] if self.box.runs is None or not snapshots else [run.id for run in self.box.runs]
        self.blocked = None
        self._flight = Flight(self.box.entries, self._intervals, now)
        self.box.may_relieve()
        self._moved()

    def detach(self, now: float) -> None:
        """The connection is gone: the session is parked, and what was in flight is unacked."""
        self.link = None
        self.parked_at = now
        self.blocked = None
        self.box.may_relieve()
        self._flight = Flight(self.box.entries, self._intervals, now)
        self._moved()

    def _moved(self) -> None:
        """Have its place noted, where that is to be durable."""
        if self.box.track is not None:
            self.box.track.moved(self)

    @property
    def dormant(self) -> bool:
        """Parked or stalled: it may not hold up a publisher who needs room."""
        return self.link is None or self.blocked is not None

    def silent(self, now: float, after: float) -> bool:
        """Whether it owes an answer: events are in flight, and none was acked for `after` seconds; or it is blocked."""
        return self.blocked is not None or (
            self.cursor > self.acked and now - self._flight.progress_at > after
        )

    @property
    def pending(self) -> bool:
        """Whether `take` has something to give."""
        return (
            self.cursor < self.box.ready
            or (self.live_at is not None and self.cursor >= self.live_at)
            or len(self._untold) > 0
        )

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
        begun, top = self.cursor, self.top
        self._books.now = now
        if self.cursor <= self.acked:
            self._flight.progress_at = now  # nothing was in flight: what is taken now has just begun to be
        ready = box.ready
        if self._untold and not self._can_tell():
            return frames
        while self._untold and size < max_bytes:
            size += self._tell(self._untold.pop(0), frames)
        while self.cursor < ready and size < max_bytes:
            entry = box.entries.get(self.cursor + 1)
            if entry is not None and entry.seq > ready:
                break  # deltas that were joined with what is not ready
            if entry is None or self._spared(entry, now) is not None:
                if not self._can_tell():
                    break
                if begun < self.cursor:
                    self._note_sent(now, begun, top)
                self._take_gaps(now, frames)
                begun = self.cursor
            elif entry.bare and not self.plain and self.cursor >= self._settled_upto:
                size += self._take_bare(now, frames, max_bytes - size)
            else:
                frame = self._delta_frame(entry, now) if entry.merge else self._frame(entry)
                self._wrote(entry, now)
                frames.append(frame)
                size += len(frame)
        if begun < self.cursor:
            self._note_sent(now, begun, top)
        if self.live_at is not None and self.cursor >= self.live_at:
            self.live_at = None
            frames.append(wire.live(self.cursor))
        return frames

    def _note_sent(self, now: float, begun: int, top: int) -> None:
        """Have the journal know that all from `begun` to the cursor was sent; up to `top` that had been before."""
        cursor = self.cursor
        if begun < top:
            self._note(now, REDELIVERED, begun + 1, min(top, cursor))
            begun = top
        if cursor > begun:
            self._note(now, SENT, begun + 1, cursor)

    def _note(
        self, now: float, step: str, first: int, last: int, retry: int = 0, reason: str | None = None
    ) -> None:
        """Write into the journal what has happened to the seqs `first` to `last`; see `journal.Line`."""
        journal = self.box.journal
        if journal is None:
            journal = self.box.open_journal()
        journal.note(Line(now, step, self.id, first, last, retry, reason))

    def _take_bare(self, now: float, frames: list[bytes], room: int) -> int:
        """As `take`, of the run of bare events from the cursor on: most events are, and cost a third this way.

        The first of them is known not to be spared. Returns: the bytes of the frames that were added.
        """
        entries, size, ready = self.box.entries, 0, self.box.ready
        before = seq = self.cursor
        entry: Entry | None = entries[seq + 1]
        while entry is not None and entry.bare and size < room:
            seq += 1
            if entry.first_sent is None:
                entry.first_sent = now
            frame = wire.BARE_EVENT % (seq, entry.tail)
            frames.append(frame)
            size += len(frame)
            if seq >= ready:
                break
            entry = entries.get(seq + 1)
            if entry is not None and entry.expires_at <= now and not entry.settled:
                break
        self.cursor = seq
        sent = max(0, seq - max(before, self.top))
        self._books.sent += sent
        self._books.redelivered += seq - before - sent
        self._passed()
        return size

    def _wrote(self, entry: Entry, now: float) -> None:
        """Note that `entry` is written; where it is the first of several deltas, the cursor is beyond it already."""
        if entry.tracked:
            self._flight.wrote(entry, now)
            if entry.first_sent is None:
                self._confirmations.written(entry, now)
        if entry.first_sent is None:
            entry.first_sent = now
        if self.skipped:
            self.skipped.discard(entry.first)  # whoever claimed to have it is sent it after all
        if self.cursor < entry.seq:
            self.cursor = entry.seq
        if self.cursor > self.top:
            self._books.sent += 1
        else:
            self._books.redelivered += 1
        self._passed()

    def _passed(self) -> None:
        """The cursor has moved on."""
        cursor = self.cursor
        if cursor > self.top:
            self.top = cursor
            if cursor > self.box.sent_high:
                self.box.sent_high = cursor

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

    def _delta_frame(self, entry: Entry, now: float) -> bytes:
        """The frame of a delta and of those right after it that wait as well, joined; the cursor moves over them."""
        alone = entry.run is not None and entry.seq <= self.unjoined
        run = [entry] if alone else self.box.deltas.neighbours(entry, self.box.ready)
        for at, delta in enumerate(run):
            if at and self._spared(delta, now) is not None:
                del run[at:]
                break
        last = run[-1]
        if len(run) > 1:
            self._note(now, MERGED, entry.first, last.seq)
        if last.seq != entry.first:
            self._flight.firsts[last.seq] = entry.first
        self._books.merged += len(run) - 1
        self.cursor = last.seq
        for delta in run[1:]:
            self.skipped.discard(delta.first)
            if delta.first_sent is None:
                delta.first_sent = now
        return self._run_frame(run)

    def _run_frame(self, run: list[Entry], retry: int = 0) -> bytes:
        """The frame of neighbouring deltas as one event."""
        if len(run) == 1:
            return self._frame(run[0], retry)
        tail = self.box.deltas.tail_of(run)
        if self.plain:
            return wire.plain_event(tail)
        truncated = any(delta.truncated for delta in run)
        return wire.event_frame(run[-1].seq, tail, truncated=truncated, retry=retry, merged_from=run[0].first)

    def _take_gaps(self, now: float, frames: list[bytes]) -> None:
        """Put what this session will not get, from the cursor on, into gap frames; the cursor moves over it."""
        gap: Run | None = None
        while self.cursor < self.box.ready and (run := self._missing(self.cursor + 1, now)) is not None:
            if gap is not None and gap.reason == run.reason:
                gap.absorb(run)
            else:
                self._put_gap(gap, now, frames)
                gap = run
            self.cursor = run.last
        self._put_gap(gap, now, frames)
        self._passed()

    def _put_gap(self, gap: Run | None, now: float, frames: list[bytes]) -> None:
        if gap is not None and not self.plain:
            self._note(now, TOLD, gap.first, gap.last, reason=gap.reason)
            if gap.agents is not None:
                self._heal(gap, frames)
            else:
                frames.append(wire.gap(gap.first, gap.last, gap.reason, gap.lost, gap.critical))

    def _heal(self, gap: Run, frames: list[bytes]) -> None:
        """Put a gap in which agents' runs have lost events into a frame, and behind it the snapshots that have them.

        A snapshot is as of the newest event: what is lost before that is in it already, and it is not sent again.
        """
        assert gap.agents is not None
        follow, healed = list[str](), 0
        snapshots = list[bytes]()
        for id, count in gap.agents.items():
            if self._told.get(id, 0) >= gap.last:
                healed += count
            elif self._tell(id, snapshots):
                follow.append(id)
                healed += count
        frames.append(wire.gap(gap.first, gap.last, gap.reason, gap.lost, gap.critical, follow, healed))
        frames += snapshots

    def _can_tell(self) -> bool:
        """Whether agents' runs can be told of: not where what may be shown ends amid deltas that were joined in the
        log. The commit that is due for the rest of them moves that on."""
        box = self.box
        return box.runs is None or self.plain or box.boundary(box.safe) == box.safe

    def _tell(self, id: str, frames: list[bytes]) -> int:
        """Put the snapshot of an agent's run into a frame, as of all that may be told of; returns its length.

        From here on nothing may be joined across its end: who folds leaves out what is in the snapshot, and could not
        leave out half an event.
        """
        box = self.box
        view = None if box.runs is None else box.runs.view(id, box.safe)
        if view is None:
            return 0
        frames.append(wire.snapshot(box.safe, id, view.payload(), view.ts))
        self._told[id] = self.unjoined = box.safe
        if box.sent_high < box.safe:
            box.sent_high = box.safe
        return len(frames[-1])

    def _missing(self, seq: int, now: float) -> Run | None:
        """The run of seqs from `seq` on that this session is not given, and why; None where the next is an event."""
        entry = self.box.entries.get(seq)
        if entry is None:
            gone = self.box.gone.at(seq)
            assert gone is not None, f"seq {seq} is neither held nor gone"
            return gone if gone.last <= self.box.ready else gone.part(seq, self.box.ready)
        if entry.seq > self.box.ready:
            return None
        reason = self._spared(entry, now)
        if reason is None:
            return None
        critical = entry.weight if entry.critical and reason == EXPIRED else 0
        agents = {entry.run: entry.weight} if entry.run is not None and entry.type in FOLDED else None
        run = Run(seq, entry.seq, reason, {entry.type: entry.weight}, critical, agents)
        if reason == SUPERSEDED:
            self.skipped.add(entry.first)
            self._moved()
            self.box.disown(entry.first)
        elif entry.expires_at <= now and not entry.settled:
            self.box.expire(entry)
        return run

    def _spared(self, entry: Entry, now: float) -> str | None:
        """Why this session is not given the held `entry`; None where it is."""
        if entry.superseded:
            return SUPERSEDED
        if entry.seq <= self.acked or (entry.seq <= self._settled_upto and entry.confirmed_at is not None):
            return SETTLED
        if entry.expires_at <= now and not entry.settled:
            return EXPIRED if entry.confirmed_at is None else SETTLED
        return None

    # -- what came back

    def ack(self, seq: int, now: float) -> bool:
        """The client processed everything up to `seq`; amid joined deltas, which come as one, up to the ones before.

        Returns: whether that was news.

        Raises:
          Impossible: `seq` is above what was sent on this session; nothing has changed.
        """
        if seq > self.top:
            raise Impossible(f"ack {seq} is above what was sent ({self.top})")
        low, seq = self.acked, self.box.boundary(seq)
        if seq <= low:
            return False
        self.acked = seq
        self._note(now, ACKED, low + 1, seq)
        if confirmed := self.box.acked(self, low, seq, now):
            self._confirmations.settle(confirmed, now, self.connected_at)
        self._flight.acked(seq, now)
        self._moved()
        return True

    def ack_sent(self, now: float) -> None:
        """A plain client confirms by being sent to."""
        if self.cursor > self.acked:
            self.ack(self.cursor, now)

    def nack(self, seq: int, now: float) -> bool:
        """The client's handler failed on `seq`: send it again, at once the first time, then after a retry interval.

        Returns: False where it is no longer held, which is nobody's mistake.

        Raises:
          Impossible: `seq` was not sent on this connection, or was acked.
        """
        if not self.acked < seq <= self.cursor:
            raise Impossible(f"nack {seq}: not in flight")
        run = self._in_flight(seq)
        if not run:
            return False
        self._note(now, NACKED, run[0].first, seq)
        self._flight.nacked(seq, now)
        return True

    def _in_flight(self, seq: int) -> list[Entry]:
        """The held entries that were sent as `seq`: one, or the deltas that it stands for; none if one has gone."""
        first = self._flight.firsts.get(seq, seq)
        entry = self.box.entries.get(first)
        if entry is None or first in self.skipped:
            return []
        run = self.box.deltas.neighbours(entry, seq) if first != seq else [entry]
        return run if run[-1].seq == seq else []

    # -- sending again

    def deadline(self) -> float:
        """When `redeliver` or `exhausted` has something to say next; infinity where nothing is unacked."""
        return self._flight.deadline()

    def redeliver(self, now: float) -> list[bytes]:
        """The frames that are due to be sent again: what was nacked, and the oldest unacked tracked event."""
        frames = []
        for seq in [] if self.plain else self._flight.due(now):
            if run := self._in_flight(seq):
                tries = self._flight.again(seq, now)
                frames.append(self._run_frame(run, tries))
                self._note(now, REDELIVERED, run[0].first, seq, tries)
                self._books.redelivered += 1
        return frames

    def exhausted(self, now: float) -> bool:
        """Whether this connection acked nothing through the whole schedule of redelivery, and some more."""
        return self._flight.exhausted(now)
