"""Records to commit, as short as a test wants them."""

from __future__ import annotations

from typing import Any

from trio_ws.core.records import Batch, EventRecord, SessionRecord, UserRecord


def event(user: str, seq: int, **more: Any) -> EventRecord:
    """An event that is critical, and has all of the rest by default."""
    fields: dict[str, Any] = {
        "user": user,
        "first": seq,
        "seq": seq,
        "id": f"id-{seq}",
        "type": "alarm",
        "priority": 3,
        "payload": b'{"text":"\xc3\xa9\\u0000"}',
        "ts": 1_700_000_000.5 + seq,
        "expires": None,
        "key": None,
        "merge": False,
        "tracked": True,
        "truncated": False,
        "owned_id": False,
        "confirmed": False,
    }
    return EventRecord(**fields | more)


def log(user: str, head: int, **more: Any) -> UserRecord:
    """A user's log as a whole; nothing of it is reserved, confirmed or lost."""
    fields: dict[str, Any] = {
        "user": user,
        "epoch": f"epoch of {user}",
        "head": head,
        "reserved": head,
        "confirmed": 0,
        "due": None,
        "partial": False,
        "gone": (),
    }
    return UserRecord(**fields | more)


def session(user: str, name: str, **more: Any) -> SessionRecord:
    """A session at the start of the log."""
    fields: dict[str, Any] = {
        "session": name,
        "user": user,
        "base": 0,
        "acked": 0,
        "skipped": (),
        "created": 1_700_000_000.0,
        "parked": None,
    }
    return SessionRecord(**fields | more)


def events(user: str, *seqs: int, **more: Any) -> Batch:
    """A commit of some events, and of the log that they are in."""
    return Batch(events=[event(user, seq, **more) for seq in seqs], users=[log(user, max(seqs))])
