"""From frames as they were read to the values that an application is given."""

from __future__ import annotations

from ..event import Event, Gap, Merged
from .wire import EventFrame, GapFrame, SnapshotFrame, StandingFrame


def event_of(frame: EventFrame) -> Event:
    """The event that a frame carries."""
    merged = frame.merged
    return Event(
        seq=frame.seq,
        id=frame.id,
        type=frame.type,
        payload=frame.payload,
        ts=frame.ts,
        critical=frame.critical,
        retry=frame.retry,
        merged=None if merged is None else Merged(from_seq=merged.from_, n=merged.n),
        truncated=frame.truncated,
        run=frame.run,
    )


def told_of(frame: SnapshotFrame | StandingFrame) -> Event:
    """What a frame tells beside the events, as one of type ``snapshot`` or ``standing`` that has no id."""
    if isinstance(frame, SnapshotFrame):
        return Event(seq=frame.seq, id="", type="snapshot", payload=frame.payload, ts=frame.ts, run=frame.run)
    return Event(seq=frame.seq, id="", type="standing", payload={"questions": frame.questions}, ts=0.0)


def gap_of(frame: GapFrame) -> Gap:
    """The gap that a frame tells of."""
    return Gap(
        first=frame.first,
        last=frame.last,
        reason=frame.reason,
        lost=frame.lost,
        critical=frame.critical,
        snapshots=frame.snapshots,
        healed=frame.healed,
    )
