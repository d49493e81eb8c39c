"""Records as rows of SQLite, and rows as records: what makes no sense as one is told apart."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, Final

from ..core.entry import EVICTED, EXPIRED, RESET, SETTLED, SUPERSEDED
from ..core.gaps import ANY_TYPE, Run
from ..core.records import EventRecord, KeyRecord, RevokedRecord, RunRecord, SessionRecord, UserRecord

CRITICAL: Final = 3

EVENT: Final = (
    "user, first, seq, id, type, priority, payload, ts, expires, key, "
    "merge, tracked, truncated, owned_id, confirmed, crc, run"
)
USER: Final = "user, epoch, head, reserved, confirmed, due, partial, gone, rest"
RUN: Final = "user, run, open, lease, state"
SESSION: Final = "user, session, base, acked, skipped, created, parked"
KEY: Final = "user, seq, id, state"
REVOKED: Final = "user, since, until"

_REASONS: Final = frozenset({EVICTED, EXPIRED, SUPERSEDED, SETTLED, RESET})
_HIGHEST: Final = 2**53
"""No seq is above what a client's numbers can hold."""

_LONG: Final = 366 * 86_400.0
"""Seconds for which a user stays revoked whose revocation is damaged."""

_NONSENSE: Final = (AttributeError, TypeError, ValueError, OverflowError, RecursionError)
"""What comes of taking one thing for another."""


class Damaged(Exception):
    """A row makes no sense; the text says in what way."""


def event_row(event: EventRecord) -> tuple[Any, ...]:
    """The row of an event, in the order of `EVENT`."""
    columns = tuple(event)
    payload = event.payload.decode()
    return (*columns[:6], payload, *columns[7:15], _crc(event), event.run)


def event_of(row: Sequence[Any]) -> EventRecord:
    """The event of a row in the order of `EVENT`.

    Raises:
      Damaged: it is not what `event_row` has made.
    """
    user, first, seq, id, type, priority, payload, ts, expires, key, *flags, crc, run = row
    try:
        columns = (user, first, seq, id, type, priority, payload.encode(), ts, expires, key)
        merge, tracked, truncated, owned_id, confirmed = (flag == 1 for flag in flags)
        event = EventRecord(*columns, merge, tracked, truncated, owned_id, confirmed, run)
        if _crc(event) != crc or not 0 < first <= seq:
            raise Damaged("its checksum is another")
    except _NONSENSE as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None
    return event


def damage(row: Sequence[Any]) -> Run | None:
    """What is lost by an event whose row is damaged, as far as its row can tell."""
    first, last = (at if is_seq(at) else 0 for at in row[1:3])
    first, last = first or last, max(first, last)
    if not first:
        return None
    kind = row[4] if is_text(row[4]) else ANY_TYPE
    count = last - first + 1
    return Run(first, last, RESET, {kind: count}, count if row[5] == CRITICAL else 0)


def is_text(value: object) -> bool:
    """Whether it is text, all of it: what was no UTF-8 is there as surrogates."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def is_seq(value: object, upto: int = _HIGHEST) -> bool:
    """Whether it is a seq, or 0, and at most `upto`."""
    return isinstance(value, int) and 0 <= value <= upto


def _crc(event: EventRecord) -> int:
    """Of all columns that never change; of the run only where there is one: older versions knew none."""
    columns = (*event[:6], float(event.ts), *event[8:14], *(() if event.run is None else (event.run,)))
    return zlib.crc32(event.payload, zlib.crc32(repr(columns).encode("utf-8", "backslashreplace")))


def user_row(user: UserRecord) -> tuple[Any, ...]:
    """The row of a user, in the order of `USER`."""
    gone = None
    if user.gone is not None:
        gone = json.dumps(
            [[run.first, run.last, run.reason, run.lost, run.critical, run.agents] for run in user.gone]
        )
    return (*user[:7], gone, user.rest)


def user_of(row: Sequence[Any]) -> UserRecord:
    """The user of a row in the order of `USER`.

    Raises:
      Damaged: it makes no sense.
    """
    try:
        name, epoch, head, reserved, confirmed, due, partial, gone, rest = row
        if not (
            is_text(epoch)
            and is_seq(reserved)
            and is_seq(head, reserved)
            and is_seq(confirmed, head)
            and is_seq(rest)
        ):
            raise Damaged("epoch, head, reserved, confirmed or rest is not what it can be")
        runs = tuple(_run_of(*run) for run in json.loads(gone or "[]"))
        return UserRecord(name, epoch, head, reserved, confirmed, _time(due), partial == 1, runs, rest)
    except _NONSENSE as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None


def _run_of(
    first: int,
    last: int,
    reason: str,
    lost: dict[str, int],
    critical: int,
    agents: dict[str, int] | None = None,
) -> Run:
    known = {str(kind): int(count) for kind, count in lost.items()}
    whose = None if agents is None else {str(agent): int(count) for agent, count in agents.items()}
    if not (is_seq(last) and is_seq(first, last) and is_seq(critical) and reason in _REASONS):
        raise Damaged("what is gone is not what it can be")
    return Run(first, last, reason, known, critical, whose)


def _time(value: Any) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError("a time that is none")
    return None if value is None else float(value)


def run_row(run: RunRecord) -> tuple[Any, ...]:
    """The row of a run, in the order of `RUN`."""
    return (*run[:4], run.state.decode())


def run_of(row: Sequence[Any]) -> RunRecord:
    """The run of a row in the order of `RUN`.

    Raises:
      Damaged: it makes no sense.
    """
    try:
        user, run, open, lease, state = row
        if not is_text(run) or not isinstance(json.loads(state), dict):
            raise Damaged("its id is none, or its state no object")
        return RunRecord(user, run, open == 1, _time(lease), state.encode())
    except _NONSENSE as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None


def session_row(session: SessionRecord) -> tuple[Any, ...]:
    """The row of a session, in the order of `SESSION`."""
    id, user, base, acked, skipped, created, parked = session
    return user, id, base, acked, json.dumps(skipped), created, parked


def session_of(row: Sequence[Any], head: int) -> SessionRecord:
    """The session of a row in the order of `SESSION`, of a log whose newest seq is `head`.

    Raises:
      Damaged: it makes no sense.
    """
    try:
        user, id, base, acked, skipped, created, parked = row
        seqs = tuple(json.loads(skipped))
        if not is_text(id) or not all(is_seq(seq, head) for seq in (base, acked, *seqs)):
            raise Damaged("its id is none, or it is ahead of its log")
        return SessionRecord(id, user, base, acked, seqs, float(_time(created) or 0.0), _time(parked))
    except _NONSENSE as error:
        raise Damaged(f"a column is of the wrong kind: {error}") from None


def key_row(user: str, key: KeyRecord) -> tuple[Any, ...]:
    """The row of a key, in the order of `KEY`."""
    return user, key.seq, key.id, key.state


def key_of(row: Sequence[Any]) -> KeyRecord:
    """The key of a row in the order of `KEY`.

    Raises:
      Damaged: it makes no sense.
    """
    _, seq, id, state = row
    if not is_seq(seq) or not is_text(id) or not is_text(state):
        raise Damaged("seq, id or state is not what it can be")
    return KeyRecord(id, seq, state)


def revoked_of(row: Sequence[Any], now: float) -> RevokedRecord:
    """The revocation of a row in the order of `REVOKED`; one that makes no sense lets nobody in."""
    user, since, until = row
    if (
        isinstance(since, float)
        and isinstance(until, float)
        and math.isfinite(since)
        and math.isfinite(until)
    ):
        return RevokedRecord(user, since, until)
    return RevokedRecord(user, now, now + _LONG)
