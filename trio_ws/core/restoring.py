"""A mailbox as a store has kept it: its log, what is gone from it, its keys, and its sessions, which are parked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from . import wire
from .books import Books
from .confirmations import Confirmations
from .entry import CLASS_LOW, FIRM, RESET, SETTLED, Entry, placeholder
from .gaps import ANY_TYPE, MAX_AGENTS, Run
from .mailbox import Mailbox
from .records import EventRecord, Kept, KeyRecord, SessionRecord, UserRecord
from .run_grammar import Happened
from .runs import NONSENSE, Runs
from .runs import Run as AgentRun
from .session import Session


def restore(box: Mailbox, kept: Kept, now: float, wall_offset: float, *, asleep: bool) -> None:
    """Put back the log of `kept` into `box`, which is new; the sessions come next, and then `Mailbox.settle_again`.

    Args:
      now: on the hub's clock; nothing happened later, whatever the time of day was then.
      wall_offset: what is to be added to that clock for the time of day.
      asleep: this process has written all of it, and nothing has happened to it since. Where not, what may have been
        accepted since the last commit of the process before is a gap: nobody knows what it was.
    """
    user = kept.user
    reserved = user.head if asleep else max(user.head, user.reserved)
    box.epoch = user.epoch
    box.head = box.sent_high = reserved
    for key in kept.keys:
        box.remember(gone_entry(key))
    for event in kept.events:
        box.take_back(entry_of(event, now, wall_offset))
    lost = sorted([*(user.gone or ()), *kept.damaged], key=_first)
    if kept.rest is not None:
        due = math.inf if kept.rest.due is None else kept.rest.due - wall_offset
        box.put_rest_back(user.rest, _behind(user, lost), kept.rest.lesser, due, kept.rest.keys)
    if reserved > user.head:
        lost.append(Run(user.head + 1, reserved, RESET, {}, 0))
    settled_upto = user.confirmed if user.partial and not asleep else box.head
    agents = dict.fromkeys([run.run for run in kept.runs][:MAX_AGENTS], 0) or None
    box.gone.restore(list(_gone(box, lost, settled_upto, agents)))
    assert box.track is not None
    as_it_was = _seqs(box.gone.losses()) == _seqs(user.gone or ())
    due = math.inf if user.due is None else user.due - wall_offset
    box.track.restored(user.confirmed, user.reserved, due, as_it_was=as_it_was)


def _behind(user: UserRecord, lost: list[Run]) -> int:
    """How many events are in the rest: all behind what is here, but for those that are known to be lost."""
    gone = sum(max(0, min(run.last, user.head) - max(run.first, user.rest) + 1) for run in lost)
    return user.head - user.rest + 1 - gone


def _seqs(runs: Iterable[Run]) -> int:
    """How many seqs lie in these runs."""
    return sum(run.last - run.first + 1 for run in runs)


def restore_runs(runs: Runs, kept: Kept, now: float, wall_offset: float) -> None:
    """Put back the runs of `kept`, with what its log holds of them beyond their records; `runs` knows none yet.

    A record that makes no sense is left out: what is in the log of that run is delivered all the same.
    """
    found: dict[str, AgentRun] = {}
    for record in kept.runs:
        try:
            found[record.run] = AgentRun.restored(record, runs.max_text)
        except NONSENSE:
            continue
    for event in kept.events:
        run = None if event.run is None else found.get(event.run)
        if run is not None:
            run.catch_up(Happened(event.type, event.payload, event.seq, event.ts, event.id))
    for run in sorted(found.values(), key=_opened):
        if (ended := run.ended_ts) is not None:
            run.ended_at = min(ended - wall_offset, now)
        runs.add(run)


def restored_session(
    record: SessionRecord,
    box: Mailbox,
    *,
    books: Books,
    confirmations: Confirmations,
    retry_intervals: tuple[float, ...],
    now: float,
    wall_offset: float,
    parked_at: float,
) -> Session:
    """The session of `record`, parked since `parked_at` where it was connected last."""
    session = Session(
        record.session,
        box,
        record.base,
        books=books,
        confirmations=confirmations,
        retry_intervals=retry_intervals,
        now=min(record.created - wall_offset, now),
    )
    session.acked = session.cursor = max(record.base, record.acked)
    # What it was sent is not known: all of it, or an ack that was under way would be a mistake.
    session.top = max(box.ready, session.acked)
    session.skipped = set(record.skipped)
    session.unjoined = box.head  # of which snapshots it was sent nobody knows, either
    session.parked_at = session.cut_at = (
        parked_at if record.parked is None else min(record.parked - wall_offset, now)
    )
    return session


def entry_of(event: EventRecord, now: float, wall_offset: float) -> Entry:
    """The entry of an event that a store has kept; see `restore`."""
    at = min(event.ts - wall_offset, now)
    tail = wire.event_tail(event.id, event.type, event.payload, event.ts, event.run)
    entry = Entry(
        id=event.id,
        type=event.type,
        tail=tail,
        size=len(tail) + len(event.payload) if event.merge else len(tail),
        bare=not (event.tracked or event.merge or event.truncated),
        retention=event.priority + CLASS_LOW,
        tracked=event.tracked,
        ts=event.ts,
        accepted_at=at,
        expires_at=math.inf if event.expires is None else at + event.expires - event.ts,
        key=None if event.priority + CLASS_LOW == FIRM else event.key,
        merge=event.merge,
        payload=event.payload if event.merge else None,
        truncated=event.truncated,
        owned_id=event.owned_id,
        run=event.run,
        stored=True,
    )
    entry.first, entry.seq = event.first, event.seq
    if event.confirmed:
        entry.confirmed_at = at
    return entry


def gone_entry(key: KeyRecord) -> Entry:
    """What is known of an event whose key is remembered."""
    entry = placeholder(key.id, key.seq, CLASS_LOW)
    if key.state in ("settled", "merged"):
        entry.settled, entry.confirmed_at = True, 0.0
    else:
        entry.reason = key.state
    return entry


def _gone(box: Mailbox, lost: list[Run], settled_upto: int, agents: dict[str, int] | None) -> Iterator[Run]:
    """All that is not held as runs in order: `lost`, and between them what has settled; above `settled_upto` nobody
    knows that. Which of the runs of `agents` it was of is not known either."""
    at = 1
    for first, last in _holes(box):
        at = first
        for run in lost:
            if run.last < at or run.first > last:
                continue
            low, high = max(run.first, at), min(run.last, last)
            yield from _settled(at, low - 1, settled_upto, agents)
            part = run.part(low, high)
            if part.agents is None and part.reason == RESET:
                part.agents = agents and dict(agents)
            yield part
            at = high + 1
        yield from _settled(at, last, settled_upto, agents)
    for run in lost:
        if box.rest is not None and run.last >= box.rest.first:
            yield run.part(max(run.first, box.rest.first), run.last)


def _settled(first: int, last: int, upto: int, agents: dict[str, int] | None) -> Iterator[Run]:
    if first <= min(last, upto):
        count = min(last, upto) - first + 1
        yield Run(first, min(last, upto), SETTLED, {ANY_TYPE: count}, 0, agents and dict(agents))
    if max(first, upto + 1) <= last:
        yield Run(max(first, upto + 1), last, RESET, {}, 0, agents and dict(agents))


def _holes(box: Mailbox) -> Iterator[tuple[int, int]]:
    """The seqs that are not held, as first and last."""
    at = 1
    for entry in box.entries.values():
        if at < entry.first:
            yield at, entry.first - 1
        at = entry.seq + 1
    end = box.head if box.rest is None else box.rest.first - 1
    if at <= end:
        yield at, end


def _first(run: Run) -> int:
    return run.first


def _opened(run: AgentRun) -> int:
    return run.opened_seq
