"""The story of one event, step by step, put together from its entry and from the journal when somebody asks.

    accepted     it has its seq
    sent         a session was sent it, for the first time
    redelivered  it was sent to that session again: with `retry` on its schedule or after a nack, else after a reconnect
    merged       it went into a later delta, `into`: for one session on its way, or in the log where there is no session
    superseded   a later event of its key, `into`, took its place
    nacked       the session's handler failed on it
    acked        the session has processed it
    confirmed    the first session has
    timed_out    nobody had by `confirm_timeout` after it was first sent
    settled      nobody owes an ack for it any more
    gap          the session was told that it will not come, for `reason`
    evicted, expired   it has left the log unconfirmed
    forgotten    it has left the history

What the journal no longer has is left out. What stands in the entry is always told: it has its first sending, and its
confirmation, then without a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from .entry import SETTLED, SUPERSEDED, Entry
from .journal import ACKED, MERGED, REDELIVERED, SENT, Line
from .mailbox import Mailbox

STEPS: Final = (
    "accepted",
    "merged",
    "superseded",
    "sent",
    "nacked",
    "redelivered",
    "acked",
    "confirmed",
    "timed_out",
    "settled",
    "gap",
    "evicted",
    "expired",
    "forgotten",
)
"""Every step; of those at one time, the earlier here happened before."""

_RANK = {step: rank for rank, step in enumerate(STEPS)}


@attrs.frozen
class Step:
    """One step.

    Attributes:
      at: when, on the hub's clock.
      step: one of `STEPS`.
      session: whose it is, where it is one session's.
      retry: the how manieth redelivery on the schedule it was; 0 where it was none.
      into: the seq of the event that it is part of, or that took its place; 0 where there is none.
      reason: of a gap.
    """

    at: float
    step: str
    session: str | None = None
    retry: int = 0
    into: int = 0
    reason: str | None = None


@attrs.frozen
class Story:
    """What became of one event.

    Attributes:
      seq: its place.
      entry: what tells of it: itself, or what it has become the last part of.
      accepted_at: when, on the hub's clock.
      steps: in the order in which they happened.
    """

    seq: int
    entry: Entry
    accepted_at: float
    steps: list[Step]


def tell(box: Mailbox, id: str, confirm_timeout: float, behind: Entry | None = None) -> Story | None:
    """What became of the event of this id, the newest if there were several; None where nothing is known of it.

    Args:
      box: the log that it was accepted into.
      id: the event's id.
      confirm_timeout: seconds after its first sending at which a confirmation counts as timed out.
      behind: the event, where it is in the rest of the log.
    """
    entry = behind or next((e for e in reversed(box.entries.values()) if e.id == id), None)
    past = [] if box.journal is None else [e for e in box.journal.past if e.id == id]
    if entry is None:
        if not past:
            return None
        entry = max(past, key=lambda e: (e.seq, e.weight))
    accepted = next((e for e in past if e.seq == entry.seq and e.weight == 1), entry)
    lines = [] if box.journal is None else box.journal.lines
    steps = [Step(accepted.accepted_at, "accepted")]
    steps += _of_lines([line for line in lines if line.first <= entry.seq <= line.last], entry.seq)
    steps += _of_entry(box, entry, steps, confirm_timeout)
    return Story(entry.seq, entry, accepted.accepted_at, sorted(steps, key=lambda s: (s.at, _RANK[s.step])))


def newest(box: Mailbox, limit: int, before: int | None = None, behind: Sequence[Entry] = ()) -> list[Entry]:
    """The events of a log that are known, the newest first: what it holds, and what the journal has kept.

    Args:
      limit: how many.
      before: only those of a lower seq.
      behind: those of them that are in the rest of the log.
    """
    known: dict[int, Entry] = {}
    for entries in ([] if box.journal is None else box.journal.past, box.entries.values(), behind):
        for entry in entries:
            # Of joined deltas and the last of them, which have one seq and one id, the joined ones tell more.
            if entry.weight > 1 or entry.seq not in known:
                known[entry.seq] = entry
    return [known[seq] for seq in sorted(known, reverse=True) if before is None or seq < before][:limit]


def heir(entry: Entry) -> Entry:
    """What `entry` has become part of by now; itself where it stands for itself."""
    while entry.into is not None:
        entry = entry.into
    return entry


def _of_lines(lines: list[Line], seq: int) -> Iterator[Step]:
    """The steps that the lines about `seq` tell of."""
    had: set[str] = set()
    for line in lines:
        if line.step in (SENT, REDELIVERED):
            had.add(line.session)
        elif line.step == MERGED:
            if line.last != seq:
                yield Step(line.at, MERGED, line.session, into=line.last)
            continue
        elif line.step == ACKED and line.session not in had:
            continue  # an ack is cumulative: it also covers what was told of in a gap
        yield Step(line.at, line.step, line.session, retry=line.retry, reason=line.reason)


def _of_entry(box: Mailbox, entry: Entry, lines: list[Step], confirm_timeout: float) -> Iterator[Step]:
    """The steps that the entry itself tells of, and those that it goes through as part of another."""
    part = entry
    while part.into is not None:
        if part.gone_at is not None:
            yield Step(part.gone_at, MERGED, into=part.into.seq)
        part = part.into
    if part.first_sent is not None and not any(s.step == SENT and s.at == part.first_sent for s in lines):
        yield Step(part.first_sent, SENT)
    if part.superseded or part.reason == SUPERSEDED:
        yield Step(_superseded_at(box, part), SUPERSEDED, into=part.successor)
    if part.confirmed_at is not None:
        by = next((s.session for s in lines if s.step == ACKED and s.at == part.confirmed_at), None)
        yield Step(part.confirmed_at, "confirmed", by)
    if part.timed_out and part.first_sent is not None:
        yield Step(part.first_sent + confirm_timeout, "timed_out")
    if part.settled_at is not None:
        yield Step(part.settled_at, SETTLED)
    if part.gone_at is not None and part.reason != SUPERSEDED:
        yield Step(part.gone_at, part.reason or "forgotten")


def _superseded_at(box: Mailbox, entry: Entry) -> float:
    """When its successor was accepted; where nothing is known of that any more, when it went, or was last heard of."""
    past = [] if box.journal is None else box.journal.past
    successor = box.entries.get(entry.successor)
    for kept in past if successor is None else ():
        if kept.seq == entry.successor:
            successor = kept
    if successor is not None:
        return successor.accepted_at
    return entry.gone_at if entry.gone_at is not None else box.last_event_at
