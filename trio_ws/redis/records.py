"""Records as values of Redis, and values as records: what makes no sense as one is told apart.

Each begins with a checksum, which is also of whose it is, and a number that says what follows:

    0   4 bytes   CRC-32 of all behind it, and of the names of the user and of what it is about
    4   1 byte    `FORMAT`
    5             MessagePack

An event has 2 bytes before its MessagePack, which say how long that is, and its payload behind it. So the scripts can
look at an event and leave the payload alone; they know where its fields are (scripts/commit.lua).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..core.records import EventRecord, KeyRecord, RevokedRecord, RunRecord, SessionRecord, UserRecord
from ..errors import StoreError
from ..store import rows
from ..store.rows import Damaged

FORMAT: Final = 1

_MERGE, _TRACKED, _TRUNCATED, _OWNED, _CONFIRMED = 1, 2, 4, 8, 16

_NO_MESSAGEPACK: Final = (ValueError, RecursionError)
"""What comes of reading what is none: no UTF-8, and what is nested too deeply, are no errors of msgspec's."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(
    tuple[int, int, str, str, int, float, float | None, str | None, int, str | None]
).decode
_decode_row = msgspec.msgpack.Decoder(list[Any]).decode


class Newer(StoreError):
    """It was written by a newer version of this package."""

    def __init__(self) -> None:
        super().__init__("what Redis holds was written by a newer version of trio-ws: this one can't read it")


def seed(user: str, about: str = "") -> int:
    """What a checksum starts from."""
    return zlib.crc32(f"{user}\0{about}".encode())


def _sealed(body: bytes, start: int, format: int = FORMAT) -> bytes:
    body = bytes((format,)) + body
    return zlib.crc32(body, start).to_bytes(4) + body


def _opened(value: bytes, start: int) -> bytes:
    """What was sealed, behind the number of its format.

    Raises:
      Damaged: its checksum is another.
      Newer: its format is.
    """
    if zlib.crc32(value[4:], start) != int.from_bytes(value[:4]) or len(value) < 5:
        raise Damaged("its checksum is another")
    if value[4] != FORMAT:
        raise Newer
    return value[5:]


def event_value(event: EventRecord, start: int) -> bytes:
    """The value of an event, whose user's `seed` is `start`."""
    flags = (
        event.merge * _MERGE
        | event.tracked * _TRACKED
        | event.truncated * _TRUNCATED
        | event.owned_id * _OWNED
        | event.confirmed * _CONFIRMED
    )
    _, first, seq, id, type, priority, payload, ts, expires, key, *_, run = event
    head = _encode((first, seq, id, type, priority, ts, expires, key, flags, run))
    return _sealed(len(head).to_bytes(2) + head + payload, start)


def event_of(user: str, value: bytes, start: int) -> EventRecord:
    """The event of a value.

    Raises:
      Damaged: it is not what `event_value` has made.
      Newer: it is of a newer version.
    """
    body = _opened(value, start)
    end = 2 + int.from_bytes(body[:2])
    try:
        first, seq, id, type, priority, ts, expires, key, flags, run = _decode_head(body[2:end])
    except _NO_MESSAGEPACK as error:
        raise Damaged(f"it is not what an event is: {error}") from None
    if not (math.isfinite(ts) and math.isfinite(expires or 0.0)):
        raise Damaged("its times are none")
    return EventRecord(
        user,
        first,
        seq,
        id,
        type,
        priority,
        body[end:],
        ts,
        expires,
        key,
        flags & _MERGE > 0,
        flags & _TRACKED > 0,
        flags & _TRUNCATED > 0,
        flags & _OWNED > 0,
        flags & _CONFIRMED > 0,
        run,
    )


def what_is_left(user: str, value: bytes, first: int) -> Sequence[Any]:
    """What can be told of an event that is damaged, in the order of `rows.EVENT`, as far as `rows.damage` looks."""
    body = value[5:]
    try:
        _, seq, _, type, priority, *_ = _decode_head(body[2 : 2 + int.from_bytes(body[:2])])
    except _NO_MESSAGEPACK:
        seq, type, priority = first, None, None
    return (user, first, seq, None, type, priority)


def user_values(user: UserRecord) -> tuple[bytes, bytes]:
    """The value of a log as a whole, and of what is gone from it: nothing where that is as it was."""
    name, epoch, head, reserved, confirmed, due, partial, gone, rest = rows.user_row(user)
    whole = _sealed(_encode((epoch, head, reserved, confirmed, due, partial, rest)), seed(name))
    return whole, b"" if gone is None else _sealed(gone.encode(), seed(name, "gone"))


def user_of(name: str, value: bytes, gone: bytes) -> UserRecord:
    """The log of these values.

    Raises:
      Damaged, Newer: as `event_of`.
    """
    epoch, head, reserved, confirmed, due, partial, rest = _row(value, seed(name), 7)
    lost = _opened(gone, seed(name, "gone")) if gone else b""
    return rows.user_of((name, epoch, head, reserved, confirmed, due, partial, lost, rest))


def session_value(session: SessionRecord) -> bytes:
    """The value of a session."""
    user, id, *columns = rows.session_row(session)
    return _sealed(_encode(columns), seed(user, id))


def session_of(user: str, id: str, value: bytes, head: int) -> SessionRecord:
    """The session of a value, of a log whose newest seq is `head`.

    Raises:
      Damaged, Newer: as `event_of`.
    """
    return rows.session_of((user, id, *_row(value, seed(user, id), 5)), head)


def run_value(run: RunRecord) -> bytes:
    """The value of a run."""
    return _sealed(_encode((run.open, run.lease, run.state.decode())), seed(run.user, run.run))


def run_of(user: str, id: str, value: bytes) -> RunRecord:
    """The run of a value.

    Raises:
      Damaged, Newer: as `event_of`.
    """
    return rows.run_of((user, id, *_row(value, seed(user, id), 3)))


def key_of(user: str, value: bytes) -> KeyRecord:
    """The key of a value, which scripts/commit.lua has made.

    Raises:
      Damaged: it makes no sense.
    """
    seq, _, named = value.decode("utf-8", "surrogateescape").partition(" ")
    state, _, id = named.partition(" ")
    return rows.key_of((user, int(seq) if seq.isdecimal() else None, id, state))


def revoked_value(record: RevokedRecord) -> bytes:
    """The value of a revocation."""
    return _sealed(_encode((record.since, record.until)), seed(record.user))


def revoked_of(user: str, value: bytes, now: float) -> RevokedRecord:
    """The revocation of a value; one that makes no sense lets nobody in.

    Raises:
      Newer: as `event_of`.
    """
    try:
        since, until = _row(value, seed(user), 2)
    except Damaged:
        since = until = None
    return rows.revoked_of((user, since, until), now)


def _row(value: bytes, start: int, length: int) -> Sequence[Any]:
    try:
        row = _decode_row(_opened(value, start))
    except _NO_MESSAGEPACK as error:
        raise Damaged(f"it is no MessagePack: {error}") from None
    if len(row) != length:
        raise Damaged(f"it has {len(row)} fields")
    return row
