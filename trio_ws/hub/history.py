"""What is told of users and of single events, in the shapes of the admin API; times are Unix time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, Final

from ..core import story
from ..core.entry import Entry
from ..core.mailbox import Mailbox
from ..core.records import Part
from ..core.restoring import entry_of
from ..errors import StoreError, StoreUnavailable
from .engine import Engine

SAME_ID: Final = 64
"""Events of one id that are looked at, where a publisher has used it again and again."""


def users(engine: Engine, prefix: str, limit: int) -> dict[str, Any]:
    """The first `limit` of those who are known, by name, and whether there are more."""
    boxes = engine.buffer.mailboxes
    names = heapq.nsmallest(limit + 1, (name for name in boxes if name.startswith(prefix)))
    return {"users": [_user(boxes[name]) for name in names[:limit]], "more": len(names) > limit}


def _user(box: Mailbox) -> dict[str, Any]:
    sessions = box.sessions.values()
    held = sum(entry.weight for entry in box.entries.values() if not entry.settled) + stored(box)
    return {
        "user": box.user,
        "connections": sum(session.link is not None for session in sessions),
        "sessions": len(sessions),
        "held": held,
        "lag": lag(box, held),
    }


def stored(box: Mailbox) -> int:
    """How many events of a user are in the store only, behind what is in memory."""
    return 0 if box.rest is None else box.rest.events


def lag(box: Mailbox, held: int) -> int:
    """How many events the slowest session of a user is behind; without one, all that are held."""
    return max((box.head - session.acked for session in box.sessions.values()), default=held)


def events(
    engine: Engine, box: Mailbox, limit: int, before: int | None, behind: Sequence[Entry] = ()
) -> dict[str, Any]:
    """The newest events of a user that are known; `behind`: those that are in the store only."""
    return {
        "user": box.user,
        "epoch": box.epoch,
        "head": box.head,
        "events": [_event(entry) for entry in story.newest(box, limit, before, behind)],
    }


async def events_behind(engine: Engine, box: Mailbox, limit: int, before: int | None) -> list[Entry]:
    """The newest events of a user that are in the store only, at most so many."""
    if box.rest is None:
        return []
    last = box.head if before is None else min(box.head, before - 1)
    return await _read(engine, box, Part(first=max(box.rest.first, last - limit + 1), last=last, most=limit))


async def event_behind(engine: Engine, box: Mailbox, id: str) -> Entry | None:
    """The newest event of this id that is in the store only; None where there is none."""
    if box.rest is None:
        return None
    found = await _read(engine, box, Part(first=box.rest.first, last=box.head, most=SAME_ID, id=id))
    return found[-1] if found else None


async def _read(engine: Engine, box: Mailbox, part: Part) -> list[Entry]:
    """A part of what is in the store only, as it is now."""
    assert engine.durability is not None
    try:
        found = await engine.durability.store.read(box.user, part)
    except StoreError as error:
        raise StoreUnavailable(f"the store can't be read: {error}") from error
    now, rest = engine.clock(), box.rest
    offset = engine.wall_clock() - now
    return [
        entry_of(event, now, offset)
        for event in found
        if rest is not None and event.first >= rest.first and box.gone.at(event.first) is None
    ]


def _event(entry: Entry) -> dict[str, Any]:
    confirmed_at = story.heir(entry).confirmed_at
    return {
        "seq": entry.seq,
        "id": entry.id,
        "type": entry.type,
        "state": entry.state,
        "critical": entry.critical,
        "ts": entry.ts,
        "size": entry.size,
        "confirmed_after": None if confirmed_at is None else max(0.0, confirmed_at - entry.accepted_at),
    }


def event(engine: Engine, box: Mailbox, id: str, behind: Entry | None = None) -> dict[str, Any] | None:
    """What became of one event, which may be in the store only, step by step; None where nothing is known of it."""
    found = story.tell(box, id, engine.config.confirm_timeout, behind)
    if found is None:
        return None
    # One for all steps, so that their order shows in their times.
    offset = engine.wall_clock() - engine.clock()
    return {
        "user": box.user,
        "epoch": box.epoch,
        "id": id,
        "seq": found.seq,
        "type": found.entry.type,
        "state": found.entry.state,
        "critical": found.entry.critical,
        "steps": [_step(step, offset) for step in found.steps],
    }


def _step(step: story.Step, offset: float) -> dict[str, Any]:
    """One step; what does not apply is absent."""
    told: dict[str, Any] = {"at": round(offset + step.at, 6), "step": step.step}
    for name in ("session", "retry", "into", "reason"):
        if value := getattr(step, name):
            told[name] = value
    return told
