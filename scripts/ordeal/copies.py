"""Copies of a database that is written meanwhile: each is opened as the server would, and must hold what was promised.

Two ways: SQLite's backup, which anybody may use, and the files themselves, `DB` first and then `DB-wal`. The second is
sound only where the write-ahead log was not begun anew meanwhile: its header tells. Other copies are thrown away.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio

from trio_ws.core.records import Kept
from trio_ws.errors import StoreError
from trio_ws.store import SqliteStore

from .journal import Reader

LOOKED_FOR: Final = 200
"""How many of a user's newest critical events a copy is searched for: older ones' keys may be forgotten."""
WAL_HEADER: Final = 32
Promise: TypeAlias = tuple[str, int, str]
"""An event that was answered: its id, its seq, and the epoch that this is of."""


@attrs.define
class Answered:
    """What publishers were answered, read from their journals as they are written.

    Attributes:
      by_user: the newest critical events, promised to be durable.
      critical, count: how many answers there were: for critical events, and in all.
    """

    directory: Path
    by_user: dict[str, list[Promise]] = attrs.Factory(dict)
    critical: int = 0
    count: int = 0
    _readers: dict[Path, Reader] = attrs.Factory(dict)
    _tried: set[str] = attrs.Factory(set)

    def catch_up(self) -> None:
        """Read what is new."""
        for path in self.directory.glob("publisher-*.jsonl"):
            reader = self._readers.setdefault(path, Reader(path))
            for line in reader.more():
                if line["do"] == "try" and line["critical"]:
                    self._tried.add(line["id"])
                elif line["do"] == "answer":
                    self.count += 1
                    if line["id"] not in self._tried:
                        continue
                    self._tried.discard(line["id"])
                    self.critical += 1
                    newest = self.by_user.setdefault(line["user"], [])
                    newest.append((line["id"], line["seq"], line["epoch"]))
                    del newest[:-LOOKED_FOR]

    def so_far(self) -> dict[str, list[Promise]]:
        """The newest of each user."""
        self.catch_up()
        return {user: list(newest) for user, newest in self.by_user.items()}


def backup(source: Path, target: Path) -> bool:
    """Copy by SQLite's backup; False where there is no copy, as another kept the file locked."""
    try:
        with closing(sqlite3.connect(source, timeout=2)) as db, closing(sqlite3.connect(target)) as copy:
            db.backup(copy)
    except sqlite3.OperationalError:
        return False
    return True


def plain(source: Path, target: Path) -> bool:
    """Copy the files; False where that came to nothing, as the write-ahead log was begun anew meanwhile."""
    wal = source.with_name(source.name + "-wal")
    try:
        before = _head(wal)
        shutil.copyfile(source, target)
        shutil.copyfile(wal, target.with_name(target.name + "-wal"))
        return len(before) == WAL_HEADER and before == _head(wal)
    except FileNotFoundError:
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(WAL_HEADER)


async def look_into(copy: Path, promised: dict[str, list[Promise]]) -> list[str]:
    """What is wrong with a copy that was begun after all of `promised` was answered."""
    found = await trio.to_thread.run_sync(_integrity, copy)
    kept: dict[str, Kept] = {}
    store = SqliteStore(copy)
    try:
        for user in (await store.open()).users:
            log = await store.load(user)
            if log is not None:
                kept[user] = log
        if store.stats()["quarantined"]:
            found.append("it holds rows that make no sense")
    except StoreError as error:
        found.append(f"it can't be opened: {error}")
    finally:
        await store.close()
    for user, events in promised.items():
        found += missing(user, kept.get(user), events)
    return found


def missing(user: str, kept: Kept | None, promised: Iterable[Promise]) -> list[str]:
    """What of `promised` is neither held nor remembered, but for epochs that are over: clients are told of these."""
    if kept is None:
        return [f"nothing is known of {user}"] if promised else []
    there = [(id, seq) for id, seq, epoch in promised if epoch == kept.user.epoch]
    held = {event.id: event.seq for event in kept.events} | {key.id: key.seq for key in kept.keys}
    if kept.rest is not None:
        held |= kept.rest.keys  # in the store only, behind what memory has room for
    wrong = [
        f"{id} of {user} is at {held[id]}, not at {seq}" for id, seq in there if held.get(id, seq) != seq
    ]
    return wrong + [f"{id} of {user}, seq {seq}, is missing" for id, seq in there if id not in held]


def _integrity(copy: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(copy)) as db:
            answer = [row[0] for row in db.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        return [f"integrity_check: {error}"]
    return [] if answer == ["ok"] else [f"integrity_check: {line}" for line in answer[:5]]


@attrs.define
class Copies:
    """Takes copies of `source`, one after the other, in `directory`; what is found goes to `findings`.

    Attributes:
      taken: how many were checked, by the way they were made.
    """

    source: Path
    directory: Path
    answered: Answered
    findings: list[str] = attrs.Factory(list)
    taken: dict[str, int] = attrs.Factory(lambda: {"backup": 0, "plain": 0})

    async def take(self, how: str) -> None:
        """Take a copy by the way `how`, and check it. What is wrong with one is kept."""
        target = self.directory / f"copy-{time.monotonic_ns()}.db"
        promised = self.answered.so_far()
        found: list[str] = []
        try:
            if not await trio.to_thread.run_sync(
                {"backup": backup, "plain": plain}[how], self.source, target
            ):
                return
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
                found = await look_into(target, promised)
            self.taken[how] += 1
            self.findings += [f"{target.name} ({how}): {one}" for one in found]
        finally:
            if not found:
                for path in self.directory.glob(f"{target.name}*"):
                    path.unlink()
