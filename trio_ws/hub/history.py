"""What is told of users and of single events, in the shapes of the admin API; times are Unix time."""

from __future__ import annotations

import heapq
from typing import Any

from ..core import story
from ..core.entry import Entry
from ..core.mailbox import Mailbox
from .engine import Engine


def users(engine: Engine, prefix: str, limit: int) -> dict[str, Any]:
    """The first `limit` of those who are known, by name, and whether there are more."""
    boxes = engine.buffer.mailboxes
    names = heapq.nsmallest(limit + 1, (name for name in boxes if name.startswith(prefix)))
    return {"users": [_user(boxes[name]) for name in names[:limit]], "more": len(names) > limit}


def _user(box: Mailbox) -> dict[str, Any]:
    sessions = box.sessions.values()
    held = sum(entry.weight for entry in box.entries.values() if not entry.settled)
    return {
        "user": box.user,
        "connections": sum(session.link is not None for session in sessions),
        "sessions": len(sessions),
        "held": held,
        "lag": lag(box, held),
    }


def lag(box: Mailbox, held: int) -> int:
    """How many events the slowest session of a user is behind; without one, all that are held."""
    return max((box.head - session.acked for session in box.sessions.values()), default=held)


def events(engine: Engine, box: Mailbox, limit: int, before: int | None) -> dict[str, Any]:
    """The newest events of a user that are known."""
    return {
        "user": box.user,
        "epoch": box.epoch,
        "head": box.head,
        "events": [_event(entry) for entry in story.newest(box, limit, before)],
    }


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


def event(engine: Engine, box: Mailbox, id: str) -> dict[str, Any] | None:
    """What became of one event, step by step; None where nothing is known of it."""
    found = story.tell(box, id, engine.config.confirm_timeout)
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
