"""Records as rows of SQLite, and rows as records: what makes no sense as one is told apart."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any, Final

from ..core.entry import RESET
from ..core.gaps import ANY_TYPE, Run
from ..core.records import EventRecord, KeyRecord, SessionRecord, UserRecord

CRITICAL: Final = 3

EVENT: Final = (
    "user, first, seq, id, type, priority, payload, ts, expires, key, "
    "merge, tracked, truncated, owned_id, confirmed, crc"
)
USER: Final = "user, epoch, head, reserved, confirmed, due, partial, gone, rest"
SESSION: Final = "user, session, base, acked, skipped, created, parked"


class Damaged(Exception):
    """A row makes no sense; the text says in what way."""


def event_row(event: EventRecord) -> tuple[Any, ...]:
    """The row of an event, in the order of `EVENT`."""
    columns = tuple(event)
    payload = event.payload.decode()
    return (*columns[:6], payload, *columns[7:], _crc(columns[:14]))


def event_of(row: Sequence[Any]) -> EventRecord:
    """The event of a row in the order of `EVENT`.

    Raises:
      Damaged: it is not what `event_row` has made.
    """
    user, first, seq, id, type, priority, payload, ts, expires, key, *flags, crc = row
    try:
        columns = (user, first, seq, id, type, priority, payload.encode(), ts, expires, key)
        event = EventRecord(*columns, *map(bool, flags))
        if _crc(tuple(event)[:14]) != crc or not 0 < first <= seq:
            raise Damaged("its checksum is another")
    except (AttributeError, TypeError, ValueError) as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None
    return event


def damage(row: Sequence[Any]) -> Run | None:
    """What is lost by an event whose row is damaged, as far as its row can tell."""
    first, seq = row[1], row[2]
    if not isinstance(first, int):
        return None
    last = seq if isinstance(seq, int) and seq >= first else first
    kind = row[4] if isinstance(row[4], str) else ANY_TYPE
    count = last - first + 1
    return Run(first, last, RESET, {kind: count}, count if row[5] == CRITICAL else 0)


def _crc(columns: tuple[Any, ...]) -> int:
    """Of all columns up to the last that never changes."""
    head = repr((*columns[:6], float(columns[7]), *columns[8:])).encode("utf-8", "backslashreplace")
    return zlib.crc32(columns[6], zlib.crc32(head))


def user_row(user: UserRecord) -> tuple[Any, ...]:
    """The row of a user, in the order of `USER`."""
    gone = None
    if user.gone is not None:
        gone = json.dumps([[run.first, run.last, run.reason, run.lost, run.critical] for run in user.gone])
    return (*user[:7], gone, user.rest)


def user_of(row: Sequence[Any]) -> UserRecord:
    """The user of a row in the order of `USER`.

    Raises:
      Damaged: it makes no sense.
    """
    try:
        name, epoch, head, reserved, confirmed, due, partial, gone, rest = row
        runs = tuple(
            Run(int(a), int(b), str(r), dict(lost), int(c)) for a, b, r, lost, c in json.loads(gone or "[]")
        )
        if not isinstance(epoch, str) or not 0 <= head <= reserved:
            raise Damaged("epoch, head or reserved is not what it can be")
        return UserRecord(name, epoch, head, reserved, int(confirmed), due, bool(partial), runs, int(rest))
    except (TypeError, ValueError, KeyError) as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None


def session_row(session: SessionRecord) -> tuple[Any, ...]:
    """The row of a session, in the order of `SESSION`."""
    id, user, base, acked, skipped, created, parked = session
    return user, id, base, acked, json.dumps(skipped), created, parked


def session_of(row: Sequence[Any]) -> SessionRecord:
    """The session of a row in the order of `SESSION`.

    Raises:
      Damaged: it makes no sense.
    """
    try:
        user, id, base, acked, skipped, created, parked = row
        seqs = tuple(int(seq) for seq in json.loads(skipped))
        return SessionRecord(
            id, user, int(base), int(acked), seqs, float(created), None if parked is None else float(parked)
        )
    except (TypeError, ValueError) as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None


def key_of(row: sqlite3.Row | Sequence[Any]) -> KeyRecord:
    """The key of a row of id, seq and state."""
    return KeyRecord(str(row[0]), int(row[1]), str(row[2]))
