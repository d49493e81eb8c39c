"""The file of a SQLite store: it is taken for this process alone, opened, and looked at before each commit.

SQLite holds on to inodes. Where a file is deleted, replaced or cut under it, it goes on as if nothing had happened, and
what it writes from then on is gone with the process. So each commit is preceded by a look: is the file that was taken
still at its place, is its write-ahead log, and is all of it there?
"""

from __future__ import annotations

import fcntl
import operator
import os
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import StoreError
from .schema import migrate, version_of

BUSY_TIMEOUT: Final = 1.0
"""Seconds that a commit waits where another process holds the file locked; then it fails, and is tried again."""

WAL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that the write-ahead log is cut back to once it was longer, because a reader held it up."""

_HEADER: Final = struct.Struct(">16x H 10x I")
"""SQLite's header as far as it matters here: the size of a page, and the number of pages."""


class Displaced(StoreError):
    """The file or its write-ahead log is not at its place any more, and still whole as it is open here."""


class DatabaseFile:
    """The file at `path`, and what lies beside it. All methods block.

    Attributes:
      path, wal: where it is, and its write-ahead log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = path.with_name(path.name + "-wal")
        self._places = str(self.path), str(self.wal)  # a `Path` makes it anew each time that it is asked
        self._lock: int | None = None
        self._size = 0
        self._wal_there: tuple[int, int] | None = None

    def take(self) -> None:
        """Make the file ours alone. It is opened first and closed last: to close it drops SQLite's own locks on it.

        Raises:
          StoreError: it is in use, or only its write-ahead log is there.
          OSError: it can't be opened or made.
        """
        if self._lock is not None:
            raise StoreError(f"{self.path} is open already")
        if not self.path.exists() and _size(self.wal):
            # SQLite would take that for what is left of another file, and delete it.
            raise StoreError(
                f"{self.path} is gone, and {self.wal.name} is still there: put it back, or move that away"
            )
        self._lock = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.path} is in use by another trio-ws") from None

    def let_go(self) -> None:
        """Somebody else may take it. Twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def connect(self) -> sqlite3.Connection:
        """A connection to write by.

        Raises:
          StoreError: it is no file of ours, or was made by a newer version.
        """
        db = self._connect()
        try:
            version = version_of(db)  # before anything is changed in it
            if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise StoreError("this file system has no write-ahead log")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
            migrate(db, version)
        except StoreError as error:
            db.close()
            raise StoreError(f"{self.path}: {error}") from None
        except BaseException:
            db.close()
            raise
        return db

    def connect_to_read(self, mode: str = "rw") -> sqlite3.Connection:
        """A connection to read by. Text that is no UTF-8 comes as surrogates, and is no error.

        Args:
          mode: ``ro``: it does nothing to the write-ahead log when it is closed.
        """
        db = self._connect(mode)
        db.execute("PRAGMA query_only = ON")
        db.text_factory = operator.methodcaller("decode", "utf-8", "surrogateescape")
        return db

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",  # it is not made here: `take` does that
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def remember(self) -> None:
        """What is there now is what `look` expects. Some connection has read from it before, and stays open."""
        self._wal_there = _identity(self._places[1])
        self.remember_size()

    def remember_size(self) -> None:
        """A commit may have made it longer."""
        assert self._lock is not None
        self._size = os.fstat(self._lock).st_size

    def look(self) -> None:
        """See to it that what is written comes into the file that was taken, and no other.

        Raises:
          Displaced: it or its write-ahead log was moved, replaced or deleted.
          StoreError: it was cut, or is closed.
        """
        if self._lock is None:
            raise StoreError(f"{self.path} is closed")
        ours = os.fstat(self._lock)
        place, wal = self._places
        if _identity(place) != (ours.st_dev, ours.st_ino):
            raise Displaced(
                f"{self.path} was deleted or replaced while it is in use: put it back, or restart"
            )
        if _identity(wal) != self._wal_there:
            raise Displaced(f"{self.wal} was deleted or replaced while it is in use: restart")
        if ours.st_size < self._size and self._is_cut(ours.st_size):
            raise StoreError(f"{self.path} was truncated while it is in use: stop, and restore a backup")

    def rescue(self, db: sqlite3.Connection) -> None:
        """Where it is displaced: take the write-ahead log of `db` into its file, which is whole then wherever it is.
        And the log is empty: at the side of another file, it would be taken for that one's."""
        with suppress(sqlite3.Error):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _is_cut(self, size: int) -> bool:
        """Whether a file that has become shorter is not whole any more: `VACUUM` makes it shorter, too."""
        assert self._lock is not None
        head = os.pread(self._lock, _HEADER.size, 0)
        if len(head) < _HEADER.size:
            return True
        page, pages = _HEADER.unpack(head)
        return bool(size < pages * (65536 if page == 1 else page))

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and of its write-ahead log; 0 for what is not there."""
        return _size(self.path), _size(self.wal)


def _identity(path: str) -> tuple[int, int] | None:
    """Which file it is, whatever it is called."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
