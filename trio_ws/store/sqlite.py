"""A store in one SQLite file: a write-ahead log, one commit at a time, each made durable before it counts.

All of SQLite runs in worker threads of Trio: writes in one at a time, reads in another, over connections of their own.
The file is this process's alone to write (a lock says so); others may read it, as the `sqlite3` shell or a backup does.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from ..core.records import Batch, EventRecord, Kept, Part
from ..core.remembered import REMEMBERED_IDS
from ..errors import StoreError
from . import rows
from .file import DatabaseFile, Displaced
from .interface import Opened
from .reading import KEYS, Aside, read, read_part

logger = logging.getLogger(__name__)

T = TypeVar("T")

PRUNE_AFTER: Final = 256
"""How many keys of one user are written between two times at which old ones are deleted."""

_CHUNKS: Final = (64, 16, 4, 1)
"""How many rows one statement inserts: few statements, as each costs two changes of hands with the loop's thread."""

_WITHOUT_ROW: Final = """
WITH RECURSIVE held(user) AS (
  SELECT min(user) FROM events
  UNION ALL SELECT (SELECT min(user) FROM events WHERE user > held.user) FROM held WHERE held.user IS NOT NULL
)
SELECT user FROM held WHERE user IS NOT NULL AND user NOT IN (SELECT user FROM users)
"""

_UNCONFIRMED: Final = """
SELECT coalesce(sum(e.seq - e.first + 1), 0) FROM events e JOIN users u USING (user)
WHERE NOT e.confirmed AND e.seq > u.confirmed
"""

_REVOKED: Final = f"SELECT {rows.REVOKED} FROM revoked"


class SqliteStore:
    """A `Store` in the file at `path`, which is made where there is none, readable by its owner only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = DatabaseFile(self.path)
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._snapshot: sqlite3.Connection | None = None
        self._writing, self._reading = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._surveying = trio.CapacityLimiter(1)
        self._keys: dict[str, int] = {}
        self._quarantined = 0
        self._check = "not run"

    # -- the interface

    async def open(self) -> Opened:
        """See `Store`."""
        return await self._in_writer(self._open)

    async def commit(self, batch: Batch) -> None:
        """See `Store`. Cancelled, the thread goes on to its end."""
        await self._in_writer(self._transact, self._write, batch)

    async def load(self, user: str) -> Kept | None:
        """See `Store`."""
        kept, aside = await self._in_reader(self._load, user)
        await self._put_aside(aside)
        return kept

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        events, aside = await self._in_reader(self._read, user, part)
        await self._put_aside(aside)
        return events

    async def _put_aside(self, aside: Aside) -> None:
        if not aside.misfits:
            return
        await self._in_writer(self._transact, self._set_aside, aside)
        self._quarantined += len(aside.misfits)
        first = aside.misfits[0]
        logger.error(
            "damaged rows were set aside: the table quarantine has them",
            extra={
                "rows": len(aside.misfits),
                "table": first.table,
                "key": repr(first.key),
                "why": first.why,
            },
        )

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        return await self._in_reader(self._due, now, most)

    async def check(self) -> int | None:
        """See `Store`. It takes some seconds for a million events."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return None
        self._check = "running"
        try:
            self._check, unconfirmed = await trio.to_thread.run_sync(
                _survey, snapshot, limiter=self._surveying, abandon_on_cancel=True
            )
        except trio.Cancelled:
            with suppress(sqlite3.Error):  # it may be done by now
                snapshot.interrupt()
            raise
        if self._check != "ok":
            logger.error(
                "the database is damaged: restore a backup",
                extra={"path": str(self.path), "found": self._check},
            )
        return unconfirmed

    async def close(self) -> None:
        """See `Store`. The write-ahead log is taken into the file, which is then all there is.

        A call that was cancelled may go on in its thread: its connection is not closed under it.
        """
        async with self._surveying, self._reading:
            await self._in_writer(self._close)

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        size, wal = self._file.sizes()
        return {
            "kind": "sqlite",
            "path": str(self.path),
            "quarantined": self._quarantined,
            "check": self._check,
            "bytes": size + wal,
            "wal_bytes": wal,
        }

    async def _in_writer(self, function: Callable[..., T], *args: Any) -> T:
        return await self._in_thread(self._writing, function, *args)

    async def _in_reader(self, function: Callable[..., T], *args: Any) -> T:
        return await self._in_thread(self._reading, function, *args)

    async def _in_thread(self, limiter: trio.CapacityLimiter, function: Callable[..., T], *args: Any) -> T:
        try:
            return await trio.to_thread.run_sync(function, *args, limiter=limiter, abandon_on_cancel=True)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        except OSError as error:
            raise StoreError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error

    # -- in the writer's thread

    def _open(self) -> Opened:
        file = self._file
        try:
            file.take()
            self._db = file.connect()
            self._reader = file.connect_to_read()
            self._snapshot = file.connect_to_read("ro")
            for db in (self._reader, self._snapshot):
                db.execute("BEGIN")
            (self._quarantined,) = self._reader.execute("SELECT count(*) FROM quarantine").fetchone()
            self._reader.execute("ROLLBACK")
            file.remember()
            users = dict.fromkeys(_users(self._snapshot))
            open_runs = self._snapshot.execute("SELECT DISTINCT user FROM runs WHERE open")
            return Opened(
                list(users),
                [rows.revoked_of(row, time.time()) for row in self._snapshot.execute(_REVOKED)],
                [user for (user,) in open_runs if user in users],
            )
        except BaseException:
            self._let_go()
            raise

    def _transact(self, write: Callable[[sqlite3.Connection, T], None], what: T) -> None:
        """Write all of `what`, or nothing."""
        try:
            self._file.look()
        except Displaced:
            if self._db is not None:
                self._file.rescue(self._db)
            raise
        db = self._db = self._db or self._file.connect()
        try:
            db.execute("BEGIN IMMEDIATE")
            write(db, what)
            db.execute("COMMIT")
        except BaseException:
            # What SQLite can't say of its own state, a fresh connection knows.
            self._db = None
            db.close()
            raise
        self._file.remember_size()

    def _write(self, db: sqlite3.Connection, batch: Batch) -> None:
        for table in ("users", "events", "sessions", "keys", "runs"):
            if batch.closed:
                db.executemany(f"DELETE FROM {table} WHERE user = ?", [(user,) for user in batch.closed])
        for user, first, last, state, owned_ids in batch.removed:
            if owned_ids:
                self._keep_keys(db, user, first, last, state)
            db.execute("DELETE FROM events WHERE user = ? AND first BETWEEN ? AND ?", (user, first, last))
        for user, key in batch.keys:
            _insert(db, "keys", rows.KEY, [rows.key_row(user, key)])
            self._forget_keys(db, user, 1)
        _insert(db, "events", rows.EVENT, map(rows.event_row, batch.events))
        if batch.confirmed:
            db.executemany("UPDATE events SET confirmed = 1 WHERE user = ? AND first = ?", batch.confirmed)
        upsert = (
            "ON CONFLICT (user) DO UPDATE SET epoch = excluded.epoch, head = excluded.head, "
            "reserved = excluded.reserved, confirmed = excluded.confirmed, due = excluded.due, "
            "partial = excluded.partial, gone = coalesce(excluded.gone, gone), rest = excluded.rest"
        )
        _insert(db, "users", rows.USER, map(rows.user_row, batch.users), upsert)
        _insert(db, "sessions", rows.SESSION, map(rows.session_row, batch.sessions))
        _insert(db, "runs", rows.RUN, map(rows.run_row, batch.runs))
        if batch.forgotten:
            db.executemany("DELETE FROM runs WHERE user = ? AND run = ?", batch.forgotten)
        if batch.ended:
            db.executemany("DELETE FROM sessions WHERE user = ? AND session = ?", batch.ended)
        if batch.revoked:
            db.execute("DELETE FROM revoked WHERE until <= ?", (batch.revoked[0].since,))
            _insert(db, "revoked", rows.REVOKED, batch.revoked)

    def _keep_keys(self, db: sqlite3.Connection, user: str, first: int, last: int, state: str) -> None:
        """Remember the keys of what is to be deleted."""
        added = db.execute(
            "INSERT OR REPLACE INTO keys SELECT user, seq, id, ? FROM events "
            "WHERE user = ? AND first BETWEEN ? AND ? AND owned_id",
            (state, user, first, last),
        ).rowcount
        self._forget_keys(db, user, added)

    def _forget_keys(self, db: sqlite3.Connection, user: str, added: int) -> None:
        """So many keys of a user were added: now and then forget old ones."""
        count = self._keys.pop(user, 0) + added
        if count < PRUNE_AFTER:
            self._keys[user] = count
            if len(self._keys) > 65536:
                self._keys.pop(next(iter(self._keys)))
            return
        db.execute(
            "DELETE FROM keys WHERE user = ? AND seq <= "
            "(SELECT seq FROM keys WHERE user = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (user, user, REMEMBERED_IDS),
        )

    def _set_aside(self, db: sqlite3.Connection, aside: Aside) -> None:
        """Move rows that make no sense out of the way."""
        for table, key, why, row in aside.misfits:
            told = (
                time.time(),
                table,
                why.encode("ascii", "backslashreplace").decode(),
                json.dumps(row, default=repr),
            )
            db.execute("INSERT INTO quarantine (found, place, why, content) VALUES (?, ?, ?, ?)", told)
            # Whatever the key is: as a blob it can be named.
            name = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
            same = f"user = ? AND CAST({KEYS[table]} AS BLOB) = CAST(? AS BLOB)"
            db.execute(f"DELETE FROM {table} WHERE {same}", (aside.user, name))
        if aside.log is not None:
            _insert(db, "users", rows.USER, [rows.user_row(aside.log)])

    def _close(self) -> None:
        try:
            for reader in (self._reader, self._snapshot):
                if reader is not None:
                    reader.close()
            if self._db is not None:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        for db in (self._reader, self._snapshot, self._db):
            if db is not None:
                db.close()
        self._reader = self._snapshot = self._db = None
        self._file.let_go()

    # -- in the reader's thread

    def _load(self, user: str) -> tuple[Kept | None, Aside]:
        return read(self._reader_at_hand(), user)

    def _read(self, user: str, part: Part) -> tuple[list[EventRecord], Aside]:
        return read_part(self._reader_at_hand(), user, part)

    def _reader_at_hand(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StoreError(f"{self.path} is closed")
        return self._reader

    def _due(self, now: float, most: int) -> list[str]:
        found = self._reader_at_hand().execute("SELECT user FROM users WHERE due <= ? LIMIT ?", (now, most))
        return [user for (user,) in found]


def _survey(db: sqlite3.Connection) -> tuple[str, int | None]:
    """Whether what `db` sees is sound, and how many of its events are unconfirmed; `db` is closed."""
    try:
        found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        return found, int(db.execute(_UNCONFIRMED).fetchone()[0])
    except sqlite3.Error as error:
        return str(error), None
    finally:
        db.close()


def _users(db: sqlite3.Connection) -> list[str]:
    """Of whom something is held. Of some there may be events and no row: it was damaged."""
    found = [user for (user,) in db.execute("SELECT user FROM users")]
    try:
        found += [user for (user,) in db.execute(_WITHOUT_ROW)]
    except sqlite3.DatabaseError as error:
        logger.error("users without a row can't be looked for", extra={"error": str(error)})  # noqa: TRY400
    users = [user for user in found if rows.is_text(user)]
    if len(users) < len(found):
        logger.error(
            "what is held of users whose names are damaged is left where it is",
            extra={"users": len(found) - len(users)},
        )
    return users


def _insert(
    db: sqlite3.Connection, table: str, columns: str, values: Iterable[tuple[Any, ...]], upsert: str = ""
) -> None:
    """Insert rows, in the place of those with the same key, by as few statements as there need be."""
    left = list(values)
    verb = "INSERT" if upsert else "INSERT OR REPLACE"
    for size in _CHUNKS:
        while len(left) >= size:
            chunk, left = left[:size], left[size:]
            one = f"({', '.join('?' * len(chunk[0]))})"
            places = ", ".join([one] * size)
            flat = [value for row in chunk for value in row]
            db.execute(f"{verb} INTO {table} ({columns}) VALUES {places} {upsert}", flat)
