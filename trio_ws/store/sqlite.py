"""A store in one SQLite file: a write-ahead log, one commit at a time, each made durable before it counts.

All of SQLite runs in worker threads of Trio: writes in one at a time, reads in another, over connections of their own.
The file is this process's alone to write (a lock says so); others may read it, as the `sqlite3` shell or a backup does.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import trio

from ..core.records import Batch, EventRecord, Kept, KeptRest, Part
from ..core.remembered import REMEMBERED_IDS
from ..errors import StoreError
from . import rows
from .interface import Opened
from .schema import prepare

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Damage: TypeAlias = tuple[str, str, Sequence[Any]]
"""A row that makes no sense: its table, why, and itself."""

BUSY_TIMEOUT: Final = 1.0
"""Seconds that a commit waits where another process holds the file locked; then it fails, and is tried again."""

WAL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that the write-ahead log is cut back to once it was longer, because a reader held it up."""

PRUNE_AFTER: Final = 256
"""How many keys of one user are written between two times at which old ones are deleted."""

_CHUNKS: Final = (64, 16, 4, 1)
"""How many rows one statement inserts: few statements, as each costs two changes of hands with the loop's thread."""


class SqliteStore:
    """A `Store` in the file at `path`, which is made where there is none, readable by its owner only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing, self._reading = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._keys: dict[str, int] = {}
        self._quarantined = 0
        self._check = "not run"

    # -- the interface

    async def open(self) -> Opened:
        """See `Store`."""
        return await self._in_writer(self._open)

    async def commit(self, batch: Batch) -> None:
        """See `Store`. Cancelled, the thread goes on to its end."""
        await self._in_writer(self._commit, batch)

    async def load(self, user: str) -> Kept | None:
        """See `Store`."""
        kept, damaged = await self._in_reader(self._load, user)
        if damaged:
            await self._in_writer(self._set_aside, damaged)
        return kept

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        events, damaged = await self._in_reader(self._read, user, part)
        if damaged:
            await self._in_writer(self._set_aside, damaged)
        return events

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        return await self._in_reader(self._due, now, most)

    async def check(self) -> None:
        """See `Store`. It takes about a second for a million events. Cancelled, the thread goes on to its end."""
        self._check = "running"
        try:
            found = await trio.to_thread.run_sync(self._quick_check, abandon_on_cancel=True)
        except sqlite3.Error as error:
            found = str(error)
        self._check = found
        if found != "ok":
            logger.error(
                "the database is damaged: restore a backup", extra={"path": str(self.path), "found": found}
            )

    async def close(self) -> None:
        """See `Store`. The write-ahead log is taken into the file, which is then all there is."""
        await self._in_writer(self._close)

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {
            "kind": "sqlite",
            "path": str(self.path),
            "quarantined": self._quarantined,
            "check": self._check,
            "bytes": sum(_size(f"{self.path}{suffix}") for suffix in ("", "-wal")),
        }

    async def _in_writer(self, function: Callable[..., T], *args: Any) -> T:
        return await self._in_thread(self._writing, function, *args)

    async def _in_reader(self, function: Callable[..., T], *args: Any) -> T:
        return await self._in_thread(self._reading, function, *args)

    async def _in_thread(self, limiter: trio.CapacityLimiter, function: Callable[..., T], *args: Any) -> T:
        try:
            return await trio.to_thread.run_sync(function, *args, limiter=limiter, abandon_on_cancel=True)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from error

    # -- in the writer's thread

    def _open(self) -> Opened:
        try:
            self._take_lock()
            self._db = self._connect()
            self._reader = self._connect(read_only=True)
            return Opened([user for (user,) in self._db.execute("SELECT user FROM users")])
        except BaseException:
            self._let_go()
            raise

    def _take_lock(self) -> None:
        """Make the file ours alone. It is opened first and closed last: to close it drops SQLite's own locks on it."""
        if self._lock is not None:
            raise StoreError(f"{self.path} is open already")
        self._lock = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.path} is in use by another trio-ws") from None

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            if read_only:
                db.execute("PRAGMA query_only = ON")
            else:
                if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                    raise StoreError(f"{self.path}: this file system has no write-ahead log")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
                prepare(db)
        except StoreError as error:
            db.close()
            raise StoreError(f"{self.path}: {error}") from None
        except BaseException:
            db.close()
            raise
        return db

    def _commit(self, batch: Batch) -> None:
        db = self._db = self._db or self._connect()
        try:
            self._look_for_file()
            db.execute("BEGIN IMMEDIATE")
            self._write(db, batch)
            db.execute("COMMIT")
        except BaseException:
            # What SQLite can't say of its own state, a fresh connection knows.
            self._db = None
            db.close()
            raise

    def _look_for_file(self) -> None:
        """Writing on into a file that was deleted or replaced would lose all of it."""
        assert self._lock is not None
        there, ours = os.stat(self.path), os.fstat(self._lock)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise StoreError(f"{self.path} was replaced while it is in use: put it back, or restart")

    def _write(self, db: sqlite3.Connection, batch: Batch) -> None:
        for table in ("users", "events", "sessions", "keys"):
            if batch.closed:
                db.executemany(f"DELETE FROM {table} WHERE user = ?", [(user,) for user in batch.closed])
        for user, first, last, state, owned_ids in batch.removed:
            if owned_ids:
                self._keep_keys(db, user, first, last, state)
            db.execute("DELETE FROM events WHERE user = ? AND first BETWEEN ? AND ?", (user, first, last))
        for user, key in batch.keys:
            row = (user, key.seq, key.id, key.state)
            db.execute("INSERT OR REPLACE INTO keys (user, seq, id, state) VALUES (?, ?, ?, ?)", row)
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
        if batch.ended:
            db.executemany("DELETE FROM sessions WHERE user = ? AND session = ?", batch.ended)

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

    def _set_aside(self, damaged: list[_Damage]) -> None:
        """Move rows that make no sense out of the way."""
        db = self._db = self._db or self._connect()
        with db:
            db.execute("BEGIN IMMEDIATE")
            for table, why, row in damaged:
                content = json.dumps(row, default=repr)
                db.execute("INSERT INTO quarantine VALUES (?, ?, ?, ?)", (time.time(), table, why, content))
                second = {"events": "first", "sessions": "session"}[table]
                db.execute(f"DELETE FROM {table} WHERE user = ? AND {second} = ?", row[:2])
        self._quarantined += len(damaged)
        for table, why, row in damaged:
            logger.error(
                "a damaged row was set aside", extra={"table": table, "why": why, "place": repr(row[1])}
            )

    def _close(self) -> None:
        try:
            if self._reader is not None:
                self._reader.close()
            if self._db is not None:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        for db in (self._reader, self._db):
            if db is not None:
                db.close()
        self._reader = self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- in the reader's thread

    def _load(self, user: str) -> tuple[Kept | None, list[_Damage]]:
        """What is held of `user`, and the rows that make no sense."""
        db = self._reader_at_hand()
        db.execute("BEGIN")  # all of it as of one moment
        try:
            found = db.execute(f"SELECT {rows.USER} FROM users WHERE user = ?", (user,)).fetchone()
            if found is None:
                return None, []
            try:
                kept = Kept(rows.user_of(found))
            except rows.Damaged as error:
                raise StoreError(f"{self.path}: the row of a user makes no sense: {error}") from None
            damaged: list[_Damage] = []
            rest = kept.user.rest
            where, values = ("user = ? AND first < ?", (user, rest)) if rest else ("user = ?", (user,))
            for row in db.execute(f"SELECT {rows.EVENT} FROM events WHERE {where} ORDER BY first", values):
                try:
                    event = rows.event_of(row)
                    confirmed = event.confirmed or event.seq <= kept.user.confirmed
                    kept.events.append(event._replace(confirmed=confirmed))
                except rows.Damaged as error:
                    damaged.append(("events", str(error), row))
                    if (lost := rows.damage(row)) is not None:
                        kept.damaged.append(lost)
            for row in db.execute(f"SELECT {rows.SESSION} FROM sessions WHERE user = ?", (user,)):
                try:
                    kept.sessions.append(rows.session_of(row))
                except rows.Damaged as error:
                    damaged.append(("sessions", str(error), row))
            newest = "SELECT id, seq, state FROM keys WHERE user = ? ORDER BY seq DESC LIMIT ?"
            kept.keys = [rows.key_of(row) for row in db.execute(newest, (user, REMEMBERED_IDS))][::-1]
            if rest:
                kept.rest = self._rest(db, user, rest)
            return kept, damaged
        finally:
            db.execute("COMMIT")

    @staticmethod
    def _rest(db: sqlite3.Connection, user: str, rest: int) -> KeptRest:
        """What there is to know of the rest of a log before it is read."""
        figures = (
            "SELECT coalesce(sum(priority < ?), 0), min(expires) FROM events WHERE user = ? AND first >= ?"
        )
        lesser, due = db.execute(figures, (rows.CRITICAL, user, rest)).fetchone()
        keys = "SELECT id, seq FROM events WHERE user = ? AND first >= ? AND owned_id"
        return KeptRest(lesser, due, dict(db.execute(keys, (user, rest))))

    def _read(self, user: str, part: Part) -> tuple[list[EventRecord], list[_Damage]]:
        where, values, order = "user = ? AND first BETWEEN ? AND ?", [user, part.first, part.last], "first"
        if part.id is not None:
            where, values = f"{where} AND id = ?", [*values, part.id]
        if part.mortal:
            where, order = f"{where} AND expires IS NOT NULL", "expires, first"
        if part.lesser:
            where, values, order = f"{where} AND priority < ?", [*values, rows.CRITICAL], "priority, first"
        asked = f"SELECT {rows.EVENT} FROM events WHERE {where} ORDER BY {order} LIMIT ?"
        events: list[EventRecord] = []
        damaged: list[_Damage] = []
        size = 0
        for row in self._reader_at_hand().execute(asked, (*values, part.most)):
            try:
                events.append(rows.event_of(row))
            except rows.Damaged as error:
                damaged.append(("events", str(error), row))
                continue
            size += len(events[-1].payload)
            if size >= part.size:
                break
        return events, damaged

    def _reader_at_hand(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StoreError(f"{self.path} is closed")
        return self._reader

    def _due(self, now: float, most: int) -> list[str]:
        found = self._reader_at_hand().execute("SELECT user FROM users WHERE due <= ? LIMIT ?", (now, most))
        return [user for (user,) in found]

    def _quick_check(self) -> str:
        db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            db.close()


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


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
