"""What of one log is not durable yet, and what of it may be shown before it is; `Ledger` has all of them drawn up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .entry import CLASS_LOW, FIRM, GONE, SPILLED, Entry
from .ledger import NOW, SOON, Ledger
from .records import Batch, EventRecord, KeyRecord, Removal, SessionRecord, UserRecord
from .remembered import REMEMBERED_IDS
from .wire import payload_of

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .session import Session

RESERVED: Final = 16
"""How many seqs are reserved at least where there are events that may be lost; twice as many as came last where that
is more."""

RESERVED_AT_MOST: Final = 1024

RECORD_EVERY: Final = 1.0
"""Seconds after which a run is written again of which nothing has changed but its text."""


class Track:
    """What of one mailbox is not durable yet.

    Attributes:
      committed: the newest seq that was drawn up and is durable: all that must not be lost up to here is not lost.
      safe: see `Mailbox.safe`.
      written: something of this mailbox was drawn up; the store knows it.
    """

    __slots__ = (
        "_acks",
        "_box",
        "_confirmed",
        "_drawn_due",
        "_drawn_head",
        "_drawn_reserved",
        "_drawn_rest",
        "_flying",
        "_fresh",
        "_gone_changed",
        "_keys",
        "_landing",
        "_ledger",
        "_losable",
        "_removed",
        "_reserved",
        "_rest_from",
        "_runs",
        "_sessions",
        "_tightened",
        "_waiting",
        "committed",
        "safe",
        "written",
    )

    def __init__(self, ledger: Ledger, box: Mailbox) -> None:
        self._ledger = ledger
        self._box = box
        self._fresh: list[Entry] = []
        self._removed: list[Removal] = []
        self._keys: list[Entry] = []  # of what has left the log, and was never written
        self._sessions: dict[str, Session] = {}
        self._runs: dict[str, bool] = {}  # what has changed, and whether its record is to be drawn up at once
        self._acks: list[tuple[int, int]] = []
        self._gone_changed = self._tightened = self.written = False
        self._confirmed = 0  # everything up to here is confirmed or gone
        self._waiting = self._flying = (
            0  # the first durable seq that is not drawn up, and not committed; 0 for none
        )
        self._losable = 0  # events that may be lost, since the last drawing up
        self._reserved = self._drawn_reserved = self._drawn_head = self.committed = self.safe = 0
        self._rest_from = self._drawn_rest = 0  # where the rest begins, as the store knows it; 0 for none
        self._drawn_due = math.inf
        self._landing = (0, 0)  # what the commit under way has of the rest: events, and bytes

    def restored(self, confirmed: int, reserved: int, due: float, *, as_it_was: bool) -> None:
        """All of the log is as the store has it, but for what was lost since where not `as_it_was`.

        What was lost is written: the store alone can't tell it from what is confirmed later, or has settled.
        """
        head = self._box.head
        self._confirmed, self._reserved = confirmed, max(reserved, head)
        self.committed = head
        self._drawn_due = due
        self.written = True
        self._rest_from = 0 if self._box.rest is None else self._box.rest.first
        self._see_ready()
        if not as_it_was:
            self._gone_changed = True
            self._ledger.touch(self._box)
        if self._reserved > head:
            self.tighten()

    @property
    def awaited(self) -> bool:
        """Whether it holds something that somebody may wait for, and that is not drawn up."""
        return self._waiting > 0

    @property
    def idle(self) -> bool:
        """Whether the store has all of it: nothing is to be drawn up, and nothing is under way."""
        return not self._drawn_head and self._box not in self._ledger._dirty and not self._runs

    @property
    def is_tight(self) -> bool:
        """Whether no seqs are reserved, as far as the store knows."""
        return self._reserved <= self._box.head

    def tighten(self) -> None:
        """Have no seqs reserved any more."""
        self._tightened = True
        self._ledger.touch(self._box)

    def swept(self, now: float) -> None:
        """What has expired by `now` is gone: where the store has it that the log is to be looked at by then, it is told
        when that is to be next."""
        if self._drawn_due <= now:
            self._ledger.touch(self._box)

    # -- what has changed

    def accepted(self, entry: Entry) -> None:
        """`entry` was given its seq."""
        ledger = self._ledger
        durable = ledger.all_durable or entry.retention == FIRM
        if durable:
            self._fresh.append(entry)
            if not self._waiting:
                self._waiting = entry.seq
        else:
            self._losable += 1
            if ledger.others_written:
                self._note_fresh(entry)
        if entry.run is not None:
            self._note_run(entry.run, entry.retention == FIRM)
        self._see_ready()
        ledger.touch(self._box, NOW if durable else SOON)

    def spilled(self, entry: Entry) -> None:
        """`entry` was given its seq, in the rest. It is written whatever the `durability` is: it is nowhere else."""
        durable = self._ledger.is_durable(entry.retention)
        self._fresh.append(entry)
        if durable and not self._waiting:
            self._waiting = entry.seq
        if entry.run is not None:
            self._note_run(entry.run, True)
        self._see_ready()
        self._ledger.touch(self._box, NOW if durable else SOON)

    def taken_in(self) -> None:
        """The rest begins later than it did: what was read back may be shown once the store knows that."""
        self._see_ready()
        self._ledger.touch(self._box, NOW)

    def missed(self) -> None:
        """Something of the rest was not to be found in the store."""
        self._gone_changed = True

    def joined(self, run: list[Entry], entry: Entry) -> None:
        """`entry` has taken the place of the deltas of `run`."""
        for delta in run:
            if delta.stored:
                self._remove(delta, "merged")
            elif delta.owned_id:
                self._keep_key(delta)
        if self._ledger.others_written or self._ledger.all_durable:
            self._note_fresh(entry)
        if entry.run is not None:
            self._note_run(entry.run, True)
        self._ledger.touch(self._box)

    def removed(self, entry: Entry) -> None:
        """`entry` has left the log. Lost is what had not settled."""
        if entry.stored:
            self._remove(entry, entry.state)
        elif entry.owned_id:
            self._keep_key(entry)
        if not entry.settled:
            self._gone_changed = True
        if entry.run is not None and self._is_unrecorded(entry.run, entry.seq):
            self._note_run(entry.run, True)
        self._ledger.touch(self._box)

    def acked(self, low: int, high: int) -> None:
        """A session has acked what is above `low`, up to `high`."""
        self._acks.append((low, high))
        self._ledger.touch(self._box)

    def moved(self, session: Session) -> None:
        """`session` has begun, was connected or parked, has acked, or is over."""
        if not session.plain:
            self._sessions[session.id] = session
            self._ledger.touch(self._box)

    def run_changed(self, run: str) -> None:
        """What is to be kept of `run` has changed without an event."""
        self._note_run(run, True)
        self._ledger.touch(self._box, SOON)

    def runs_forgotten(self) -> None:
        """Runs are to be forgotten."""
        self._ledger.touch(self._box)

    def _note_run(self, run: str, urgent: bool) -> None:
        self._runs[run] = urgent or self._runs.get(run, False)

    def _is_unrecorded(self, id: str, seq: int) -> bool:
        """Whether what the store has of a run lacks the event at `seq`, which has left the log."""
        run = None if self._box.runs is None else self._box.runs.get(id)
        return run is not None and run.recorded < seq

    def _note_fresh(self, entry: Entry) -> None:
        fresh = self._fresh
        fresh.append(entry)
        if len(fresh) > 2 * len(self._box.entries) + 64:  # what has left the log meanwhile is never written
            self._fresh = [entry for entry in fresh if entry.line != GONE]

    def _keep_key(self, entry: Entry) -> None:
        keys = self._keys
        keys.append(entry)
        if len(keys) > 2 * REMEMBERED_IDS:
            del keys[:-REMEMBERED_IDS]

    def _remove(self, entry: Entry, state: str) -> None:
        removed, first, owned = self._removed, entry.first, entry.owned_id
        if removed and removed[-1].last + 1 == first and removed[-1].state == state:
            before = removed.pop()
            first, owned = before.first, owned or before.owned_ids
        removed.append(Removal(self._box.user, first, entry.seq, state, owned))

    def _see_ready(self) -> None:
        box, ready = self._box, min(self._box.head, self._reserved)
        if self._waiting and self._waiting <= ready:
            ready = self._waiting - 1
        if self._flying and self._flying <= ready:
            ready = self._flying - 1
        self.safe = ready
        if box.rest is not None and box.rest.first <= ready:
            ready = box.rest.first - 1
        if self._rest_from and self._rest_from <= ready:
            ready = self._rest_from - 1
        box.ready = ready

    # -- commits

    def draw_up(self, batch: Batch, most: int, size: int, now: float, wall_offset: float) -> bool:
        """Put what has changed into `batch`, at most so many events, and about so many bytes of them; returns whether
        that was all."""
        box = self._box
        fresh = [entry for entry in self._fresh if entry.line != GONE]
        if len(fresh) > most or sum([entry.size for entry in fresh]) > size:
            fresh.sort(key=_first)
            most = _fitting(fresh[:most], size)
        rest = fresh[most:]
        del fresh[most:]
        head = rest[0].first - 1 if rest else box.head
        self._flying, self._waiting = self._waiting, 0
        if rest:
            self._waiting = next((e.first for e in rest if self._ledger.is_durable(e.retention)), 0)
            if self._flying > head:
                self._flying = 0
        self._fresh, self._drawn_head = rest, head
        self._drawn_rest = 0 if box.rest is None else box.rest.first
        landing = [entry.size for entry in fresh if entry.line == SPILLED]
        self._landing = len(landing), sum(landing)
        self._draw_up_runs(batch, head, now)
        self._reserve(now)
        batch.removed += self._removed
        self._removed = []
        batch.events += [self._record(entry) for entry in fresh]
        self._draw_up_confirmed(batch)
        if not rest:
            self._draw_up_sessions(batch, wall_offset)
            batch.keys += [(box.user, KeyRecord(e.id, e.seq, e.state)) for e in self._keys]
            self._keys = []
        gone = tuple(box.gone.losses()) if self._gone_changed or not self.written else None
        self._gone_changed = False
        self._drawn_due = due = self._due(now)
        batch.users.append(
            UserRecord(
                box.user,
                box.epoch,
                head,
                self._drawn_reserved,
                self._confirmed,
                None if due == math.inf else due + wall_offset,
                not (self._ledger.others_written or self._ledger.all_durable),
                gone,
                self._drawn_rest,
            )
        )
        self.written = True
        self._see_ready()
        return not rest

    def _due(self, now: float) -> float:
        """When something of the log expires next; infinity where nothing does."""
        box, ledger = self._box, self._ledger
        due = box.next_expiry if box.entries or box.rest else now + ledger.session_ttl + ledger.event_ttl
        if box.rest is not None:
            due = min(due, box.rest.due)
        if box.runs is not None:
            due = min(due, box.runs.first_end + ledger.event_ttl)
        for session in box.sessions.values():
            if not session.plain:  # one that is connected is parked no sooner than now
                left_at = session.parked_at if session.link is None else now
                due = min(due, left_at + ledger.session_ttl)
        return due

    def _reserve(self, now: float) -> None:
        """Decide up to where seqs are reserved by what is drawn up."""
        box, wanted = self._box, min(max(RESERVED, 2 * self._losable), RESERVED_AT_MOST)
        self._drawn_reserved = max(box.head, 0 if self._tightened else self._reserved)
        if self._losable:
            self._ledger.loosen(box, now)
            if self._reserved < box.head + wanted // 2:
                self._drawn_reserved = box.head + wanted
        self._reserved = min(self._reserved, self._drawn_reserved)
        self._losable, self._tightened = 0, False

    def committed_now(self) -> bool:
        """What was drawn up is durable; returns whether there is more to show by it."""
        before = self._box.ready
        self._flying = 0
        self.committed = max(self.committed, self._drawn_head)
        self._drawn_head = 0
        self._reserved = self._drawn_reserved
        self._rest_from = self._drawn_rest
        landing, self._landing = self._landing, (0, 0)
        self._box.landed(*landing)
        self._see_ready()
        return self._box.ready > before and not self._box.closed

    def refused(self) -> None:
        """What was drawn up is not durable, and will not be: the log is another process's."""
        self._drawn_head = 0

    def abandon(self) -> tuple[int, int]:
        """Nothing more of it is drawn up: the log is another process's.

        Returns: how many events, and bytes, were on their way to be in a store only.
        """
        self._ledger.abandon(self._box)
        landing = [entry.size for entry in self._fresh if entry.line == SPILLED]
        events, size = self._landing
        self._fresh, self._landing = [], (0, 0)
        return events + len(landing), size + sum(landing)

    def _record(self, entry: Entry) -> EventRecord:
        entry.stored = True
        record = EventRecord(
            self._box.user,
            entry.first,
            entry.seq,
            entry.id,
            entry.type,
            entry.retention - CLASS_LOW,
            payload_of(entry.tail),
            entry.ts,
            None if entry.expires_at == math.inf else entry.ts + entry.expires_at - entry.accepted_at,
            entry.key,
            entry.merge,
            entry.tracked,
            entry.truncated,
            entry.owned_id,
            entry.confirmed_at is not None,
            entry.run,
        )
        if entry.line == SPILLED:
            entry.tail, entry.payload = b"", None
        return record

    def _draw_up_confirmed(self, batch: Batch) -> None:
        """Move on over what is confirmed or gone; what is confirmed above an event that is not is noted one by one."""
        if not self._acks:
            return
        box, upto = self._box, self._confirmed
        end = box.head if box.rest is None else box.rest.first - 1
        while upto < end:
            entry = box.entries.get(upto + 1)
            if entry is None:
                upto = min(end, max(upto + 1, box.gone.end_of(upto + 1)))
            elif entry.confirmed_at is None:
                break
            else:
                upto = entry.seq
        self._confirmed = upto
        for low, high in self._acks:
            if high > upto:
                batch.confirmed += [
                    (box.user, entry.first)
                    for entry in box.within(max(low, upto), high)
                    if entry.stored and entry.confirmed_at is not None
                ]
        self._acks = []

    def _draw_up_runs(self, batch: Batch, head: int, now: float) -> None:
        """Put runs that have changed up to `head` into `batch`: what is critical at once, the rest now and then."""
        runs, changed, self._runs = self._box.runs, self._runs, {}
        if runs is None:
            return
        for id, urgent in changed.items():
            run = runs.get(id)
            if run is None:
                continue
            due = urgent or self._tightened or run.recorded_at + RECORD_EVERY <= now
            if run.opened_seq <= head and due:
                batch.runs.append(run.record(self._box.user, self.safe, head))
                run.recorded, run.recorded_at = head, now
            if run.recorded < run.newest:
                self._runs[id] = urgent
        if self._runs:
            self._ledger.loosen(self._box, now)
        batch.forgotten += [(self._box.user, id) for id in runs.forgotten]
        runs.forgotten.clear()

    def _draw_up_sessions(self, batch: Batch, wall_offset: float) -> None:
        for session in self._sessions.values():
            if self._box.sessions.get(session.id) is not session:
                batch.ended.append((self._box.user, session.id))
                continue
            batch.sessions.append(
                SessionRecord(
                    session.id,
                    self._box.user,
                    session.base,
                    session.acked,
                    tuple(sorted(session.skipped)),
                    session.created_at + wall_offset,
                    None if session.link is not None else session.parked_at + wall_offset,
                )
            )
        self._sessions = {}


def _fitting(entries: list[Entry], size: int) -> int:
    """How many of these, from the first on, come to so many bytes."""
    count = 0
    while size > 0 and count < len(entries):
        size -= entries[count].size
        count += 1
    return count


def _first(entry: Entry) -> int:
    return entry.first
