"""A copy of a database, as of one moment, taken while a server writes it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from ..errors import StoreError
from .schema import version_of

PATIENCE: Final = 10.0
"""Seconds that a lock of another process is waited for."""

_NEW_EPOCHS: Final = "UPDATE users SET epoch = lower(hex(randomblob(12)))"


@attrs.frozen
class Copied:
    """What a copy holds: its bytes, its users and their events."""

    size: int
    users: int
    events: int


def back_up(source: Path, target: Path, *, new_epochs: bool = False) -> Copied:
    """Copy the database at `source` to `target`, which is not there yet, and check it. Blocks; a server that runs goes
    on. `target` comes to be whole or not at all, is on the disk when this returns, and readable by its owner only.

    Args:
      new_epochs: clients of a server that is started on the copy begin anew, whatever they were told since.

    Raises:
      StoreError: there is no such database, `target` is there already, it can't be written, or the copy is damaged.
    """
    try:
        if target.exists():
            raise StoreError(f"{target} is there already")
        with _made_whole(target) as partial:
            return _copy(source, partial, new_epochs)
    except sqlite3.Error as error:
        raise StoreError(f"{source}: {error}") from error
    except OSError as error:
        raise StoreError(f"{target}: {(error.strerror or str(error)).lower()}") from error


def _copy(source: Path, partial: Path, new_epochs: bool) -> Copied:
    with _connected(source) as db, _connected(partial) as copy:
        version_of(db)
        db.backup(copy)  # in one go: in pieces, it would begin anew with each commit
        copy.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
        if new_epochs:
            copy.execute(_NEW_EPOCHS)
        [(found,), *_] = copy.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise StoreError(f"{source} is damaged: {found}")
        (users,) = copy.execute("SELECT count(*) FROM users").fetchone()
        (events,) = copy.execute("SELECT count(*) FROM events").fetchone()
    return Copied(partial.stat().st_size, users, events)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is there."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE, isolation_level=None
    )
    try:
        yield db
    finally:
        db.close()


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """Where to write what is to be `target` once the block is through."""
    partial = target.with_name(f"{target.name}.partial")
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        yield partial
        _sync(partial)
        os.link(partial, target)  # not over another that has come meanwhile
        _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
