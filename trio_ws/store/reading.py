"""One user's log, read from a SQLite file: what makes no sense is told apart, and the rest goes on without it.

An event that is damaged leaves a gap. A session goes on by what its client knows; a key is forgotten. Where the row of
the log as a whole is damaged or missing, its epoch is unknown, and with it what any seq has meant to a client: the log
goes on in a new epoch, with all events that it has, and its sessions are over.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import attrs

from ..core.entry import RESET
from ..core.gaps import Run
from ..core.records import EventRecord, Kept, KeptRest, KeyRecord, Part, UserRecord
from ..core.remembered import REMEMBERED_IDS
from . import rows
from .rows import Damaged

T = TypeVar("T")

KEYS: Final = {"users": "user", "events": "first", "sessions": "session", "keys": "seq", "runs": "run"}
"""The column of each table that tells apart the rows of one user."""


BEYOND: Final = 2**63 - 1
"""No number in a file is higher; text and blobs are."""

AT_ONCE: Final = 200
"""How many events are loaded at once of a log whose row is damaged; the others are its rest."""


class Misfit(NamedTuple):
    """A row that makes no sense: the key of it, why, and all of it."""

    table: str
    key: Any
    why: str
    row: Sequence[Any]


@attrs.define
class Aside:
    """What is to be set aside of a user.

    Attributes:
      misfits: the rows.
      log: what takes the place of the row of the log as a whole.
    """

    user: str
    misfits: list[Misfit] = attrs.field(factory=list)
    log: UserRecord | None = None


def read(db: sqlite3.Connection, user: str) -> tuple[Kept | None, Aside]:
    """All that is held of `user` but the events of the rest, as of one moment; None where that is nothing.

    Args:
      db: made by `DatabaseFile.connect_to_read`.

    Raises:
      sqlite3.Error: the file can't be read.
    """
    aside = Aside(user)
    db.execute("BEGIN")
    try:
        return _read(db, aside), aside
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _read(db: sqlite3.Connection, aside: Aside) -> Kept | None:
    user, misfits = aside.user, aside.misfits
    row = db.execute(f"SELECT {rows.USER} FROM users WHERE user = ?", (user,)).fetchone()
    log = why = None
    try:
        log = _log(row)
        events = _events(db, aside, log.rest)
        if events and events[-1].seq > log.head:
            raise Damaged("its head is below an event")
    except Damaged as error:
        log, why = None, str(error)
        misfits.clear()
        rest = _rest_of_unknown(db, user)
        events = _events(db, aside, rest)
        if row is None and not events and not misfits:
            return None
    newest = f"SELECT {rows.KEY} FROM keys WHERE user = ? ORDER BY seq DESC LIMIT ?"
    keys = _sift(misfits, "keys", db.execute(newest, (user, REMEMBERED_IDS)).fetchall()[::-1], rows.key_of)
    sessions = db.execute(f"SELECT {rows.SESSION} FROM sessions WHERE user = ?", (user,)).fetchall()
    if log is None:
        log = aside.log = _unknown_log(db, user, keys, rest)
        misfits.append(Misfit("users", user, str(why), row or (user,)))
        misfits += [Misfit("sessions", row[1], "its log is in a new epoch", row) for row in sessions]
        going_on = []
    else:
        head = log.reserved
        going_on = _sift(misfits, "sessions", sessions, lambda row: rows.session_of(row, head))
    of_user = f"SELECT {rows.RUN} FROM runs WHERE user = ? ORDER BY run"
    runs = _sift(misfits, "runs", db.execute(of_user, (user,)).fetchall(), rows.run_of)
    upto = log.confirmed
    events = [event._replace(confirmed=event.confirmed or event.seq <= upto) for event in events]
    kept_rest = _rest(db, user, log.rest) if log.rest else None
    return Kept(log, events, going_on, keys, lost(misfits, upto, log.head), kept_rest, runs)


def _log(row: Sequence[Any] | None) -> UserRecord:
    if row is None:
        raise Damaged("it is missing")
    return rows.user_of(row)


def _events(db: sqlite3.Connection, aside: Aside, rest: int) -> list[EventRecord]:
    """The events before the rest. What has no number for a seq is behind all that have, and is taken along."""
    of = f"SELECT {rows.EVENT} FROM events WHERE user = ? AND first"
    values = (aside.user, rest or BEYOND, aside.user, BEYOND)
    found = db.execute(f"{of} < ? UNION ALL {of} >= ?", values).fetchall()
    events = sorted(_sift(aside.misfits, "events", found, rows.event_of), key=_first)
    return _without_overlaps(events, aside.misfits)


def _first(event: EventRecord) -> int:
    return event.first


def _rest_of_unknown(db: sqlite3.Connection, user: str) -> int:
    """Where the rest begins of a log of which nothing else is known: memory may have no room for all its events."""
    asked = "SELECT first FROM events WHERE user = ? ORDER BY first LIMIT 1 OFFSET ?"
    found = db.execute(asked, (user, AT_ONCE)).fetchone()
    return found[0] if found is not None and rows.is_seq(found[0]) else 0


def _rest(db: sqlite3.Connection, user: str, rest: int) -> KeptRest:
    """What there is to know of the rest of a log before it is read."""
    of = "FROM events WHERE user = ? AND first >= ?"
    figures = f"SELECT coalesce(sum(priority < ?), 0), min(expires) {of}"
    lesser, due = db.execute(figures, (rows.CRITICAL, user, rest)).fetchone()
    keys = db.execute(f"SELECT id, seq {of} AND owned_id", (user, rest))
    known = {id: seq for id, seq in keys if rows.is_text(id) and rows.is_seq(seq)}
    return KeptRest(lesser, due if isinstance(due, float) else None, known)


def read_part(db: sqlite3.Connection, user: str, part: Part) -> tuple[list[EventRecord], Aside]:
    """Events of the rest of a log.

    Args:
      db: made by `DatabaseFile.connect_to_read`.

    Raises:
      sqlite3.Error: the file can't be read.
    """
    values: list[Any] = [user, part.first, part.last]
    where, order = "user = ? AND first BETWEEN ? AND ?", "first"
    if part.id is not None:
        where, values = f"{where} AND id = ?", [*values, part.id]
    if part.mortal:
        where, order = f"{where} AND expires IS NOT NULL", "expires, first"
    if part.lesser:
        where, values, order = f"{where} AND priority < ?", [*values, rows.CRITICAL], "priority, first"
    asked = f"SELECT {rows.EVENT} FROM events WHERE {where} ORDER BY {order} LIMIT ?"
    aside, events, size = Aside(user), [], 0
    for row in db.execute(asked, (*values, part.most)):
        for event in _sift(aside.misfits, "events", [row], rows.event_of):
            events.append(event)
            size += len(event.payload)
        if size >= part.size:
            break
    return events, aside


def _sift(
    misfits: list[Misfit], table: str, found: list[Any], record_of: Callable[[Sequence[Any]], T]
) -> list[T]:
    """The records of these rows; those that are damaged become `misfits`."""
    records = []
    for row in found:
        try:
            records.append(record_of(row))
        except Damaged as error:
            misfits.append(Misfit(table, row[1], str(error), row))
    return records


def _without_overlaps(events: list[EventRecord], misfits: list[Misfit]) -> list[EventRecord]:
    """These events, but for those that stand for a seq that one before stands for, too."""
    kept: list[EventRecord] = []
    for event in events:
        if kept and event.first <= kept[-1].seq:
            misfits.append(Misfit("events", event.first, "it overlaps the one before", rows.event_row(event)))
        else:
            kept.append(event)
    return kept


def _unknown_log(db: sqlite3.Connection, user: str, keys: list[KeyRecord], rest: int) -> UserRecord:
    """The log of events of which nothing else is known: what is not there may have been lost, the newest one, too."""
    seqs = [
        seq for (seq,) in db.execute("SELECT seq FROM events WHERE user = ?", (user,)) if rows.is_seq(seq)
    ]
    return new_log(user, max([*seqs, *(key.seq for key in keys)], default=0), rest)


def new_log(user: str, head: int, rest: int) -> UserRecord:
    """A log in a new epoch, of which nothing is known but its newest seq, and where its rest begins."""
    return UserRecord(user, new_epoch(), head, head + 1, 0, None, True, (), rest)


def new_epoch() -> str:
    """One that never was."""
    return secrets.token_urlsafe(18)


def lost(misfits: list[Misfit], confirmed: int, head: int) -> list[Run]:
    """What is lost by events that are set aside; where that can't be told, all that is missing above `confirmed`."""
    all = [rows.damage(misfit.row) for misfit in misfits if misfit.table == "events"]
    known = [run for run in all if run is not None]
    if len(known) < len(all) and confirmed < head:
        known.append(Run(confirmed + 1, head, RESET, {}, 0))
    return known
