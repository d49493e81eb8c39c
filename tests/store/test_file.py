"""What can happen to the file under a store that has it open: nothing that was committed is lost, and nothing is
written where it would be."""

# ruff: noqa: ASYNC240, ASYNC221 - nothing else waits meanwhile

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_trio
import trio
import trio.testing

from trio_ws.core.records import Batch, RevokedRecord
from trio_ws.errors import StoreError
from trio_ws.store import SqliteStore

from .records import events

MANY = range(1, 301)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.db"


@pytest_trio.trio_fixture
async def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    """A store with 300 events of ada, some of them in the write-ahead log only. It waits for no lock."""
    monkeypatch.setattr("trio_ws.store.file.BUSY_TIMEOUT", 0.01)
    store = SqliteStore(path)
    await store.open()
    await store.check()
    await store.commit(events("ada", *MANY, payload=b'"' + b"x" * 500 + b'"'))
    yield store
    await store.close()


async def seqs(path: Path, user: str = "ada") -> list[int]:
    """What a store finds at `path`, in good order."""
    store = SqliteStore(path)
    await store.open()
    try:
        assert await store.check() is not None
        assert store.stats()["check"] == "ok"
        kept = await store.load(user)
        return [] if kept is None else [event.seq for event in kept.events]
    finally:
        await store.close()


async def refused(store: SqliteStore, why: str) -> None:
    """It refuses to write, each time, and reads on."""
    for _ in range(2):
        with pytest.raises(StoreError, match=f"^{re.escape(why)}"):
            await store.commit(events("bob", 1))
    kept = await store.load("ada")
    assert kept is not None
    assert len(kept.events) == len(MANY)


def beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


async def test_a_file_that_was_moved_is_whole_and_is_written_again_when_it_is_back(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved" / "it.db"
    moved.parent.mkdir()
    path.rename(moved)
    await refused(store, f"{path} was deleted or replaced")
    assert not path.exists()
    copy = shutil.copy(moved, tmp_path / "copy.db")
    assert await seqs(copy) == list(MANY)
    moved.rename(path)
    await store.commit(events("bob", 1))
    await store.close()
    assert await seqs(path, "bob") == [1]


async def test_a_file_that_was_deleted_is_not_made_anew(store: SqliteStore, path: Path) -> None:
    path.unlink()
    await refused(store, f"{path} was deleted or replaced")
    await store.close()
    assert not path.exists()
    assert await seqs(path) == []


@pytest.mark.parametrize("killed", [False, True])
async def test_what_has_taken_the_place_of_the_file_is_left_as_it_is(
    store: SqliteStore, path: Path, tmp_path: Path, killed: bool
) -> None:
    backup = SqliteStore(tmp_path / "backup.db")
    await backup.open()
    await backup.commit(events("ada", 1, 2))
    await backup.close()
    backup.path.rename(path)
    await refused(store, f"{path} was deleted or replaced")
    if killed:  # what is there then is what the next process finds
        shutil.copytree(path.parent, tmp_path / "next")
        path = tmp_path / "next" / path.name
    else:
        await store.close()
    assert await seqs(path) == [1, 2]


async def test_a_file_that_was_truncated_is_not_written(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await store.commit(events("bob", 1))  # it has seen how long it is
    os.truncate(path, path.stat().st_size // 2)
    for _ in range(2):
        with pytest.raises(StoreError, match="was truncated while it is in use: stop, and restore a backup"):
            await store.commit(events("bob", 2))
    os.truncate(path, 0)
    with pytest.raises(StoreError, match="was truncated"):
        await store.commit(events("bob", 2))
    with pytest.raises(StoreError, match="malformed"):
        await store.close()


async def test_a_file_that_has_become_shorter_by_a_vacuum_is_gone_on_with(
    store: SqliteStore, path: Path
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM events WHERE first < 290")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await store.commit(events("bob", 1))
        before = path.stat().st_size
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before
    await store.commit(events("bob", 1, 2))
    await store.close()
    assert await seqs(path, "bob") == [1, 2]


@pytest.mark.parametrize("killed", [False, True])
async def test_without_its_write_ahead_log_nothing_is_lost_and_nothing_is_written(
    store: SqliteStore, path: Path, tmp_path: Path, killed: bool
) -> None:
    (tmp_path / "it.db-wal").unlink()
    await refused(store, f"{path}-wal was deleted or replaced while it is in use: restart")
    if killed:
        path = shutil.copy(path, tmp_path / "copy.db")
    else:
        await store.close()
    assert await seqs(path) == list(MANY)


async def test_a_write_ahead_log_without_its_file_is_not_thrown_away(store: SqliteStore, path: Path) -> None:
    alone = path.parent / "alone" / "it.db"
    alone.parent.mkdir()
    shutil.copy(f"{path}-wal", f"{alone}-wal")
    with pytest.raises(StoreError, match=r"it\.db is gone, and it\.db-wal is still there"):
        await SqliteStore(alone).open()
    assert beside(alone) == ["it.db-wal"]
    shutil.copy(path, alone)
    assert await seqs(alone) == list(MANY)


async def test_revocations_whose_time_is_over_leave_the_file(store: SqliteStore, path: Path) -> None:
    for number in range(3):
        since = 1000.0 * number
        await store.commit(Batch(revoked=[RevokedRecord(f"user{number}", since, since + 1500.0)]))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT user FROM revoked ORDER BY user").fetchall() == [("user1",), ("user2",)]
        db.execute("UPDATE revoked SET until = 'x' WHERE user = 'user1'")
        db.commit()
    await store.close()
    (kept,) = [record for record in (await store.open()).revoked if record.user == "user1"]
    assert kept.since <= time.time() < kept.until  # one that makes no sense lets nobody in


@pytest.mark.parametrize("call", ["load", "check"])
async def test_a_connection_is_not_closed_under_a_thread_that_uses_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    working, go_on, order = threading.Event(), threading.Event(), []

    def slowly(db: sqlite3.Connection, *_: object) -> tuple[str, None]:
        working.set()
        go_on.wait(10)
        order.append(db.execute("SELECT 'read'").fetchone()[0])
        return "ok", None

    monkeypatch.setattr(f"trio_ws.store.sqlite.{'read' if call == 'load' else '_survey'}", slowly)
    store = SqliteStore(path)
    await store.open()

    async def close() -> None:
        await store.close()
        order.append("closed")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        arguments = ["ada"] if call == "load" else []
        nursery.start_soon(until_cancelled, scope, getattr(store, call), *arguments)
        await trio.to_thread.run_sync(working.wait)
        scope.cancel()
        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
    assert order == ["read", "closed"]


async def until_cancelled(
    scope: trio.CancelScope, call: Callable[..., Awaitable[object]], *args: object
) -> None:
    with scope:
        await call(*args)


async def test_a_closed_store_says_so(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.commit(events("ada", 1))
    with pytest.raises(StoreError, match="is closed"):
        await store.load("ada")


async def test_who_locks_the_file_makes_commits_fail_until_they_are_through(
    store: SqliteStore, path: Path
) -> None:
    script = (
        "import sqlite3, sys\n"
        f"db = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
        "db.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = await trio.lowlevel.open_process([sys.executable, "-c", script], **pipes)
    assert other.stdin is not None
    assert other.stdout is not None
    await other.stdout.receive_some()
    await refused(store, f"{path}: database is locked")
    await other.stdin.aclose()
    assert await other.wait() == 0
    await other.stdout.aclose()
    await store.commit(events("bob", 1))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a tmpfs: how it is to be is said as to mount(8); it is taken away at the end."""
    mounted = []

    def one(options: str) -> Path:
        place = tmp_path / "tmpfs"
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"a tmpfs can't be mounted here: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield one
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk_refuses_and_is_written_again_when_there_is_room(
    mount: Callable[..., Path],
) -> None:
    place = mount("size=1m")
    store = SqliteStore(place / "it.db")
    await store.open()
    await store.commit(events("ada", *MANY, payload=b'"' + b"x" * 500 + b'"'))
    with (place / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while ballast.write(b"\0" * 4096):
            pass
    with pytest.raises(StoreError, match=r"database or disk is full|disk I/O error"):
        for seq in range(1, 200):
            await store.commit(events("bob", seq, payload=b'"' + b"y" * 4000 + b'"'))
    await refused(store, f"{store.path}: ")
    (place / "ballast").unlink()
    await store.commit(events("bob", 1, 2, 3))
    await store.close()
    assert (await seqs(store.path, "bob"))[:3] == [1, 2, 3]
    assert await seqs(store.path) == list(MANY)


async def test_a_folder_that_cannot_be_written_is_refused(mount: Callable[..., Path]) -> None:
    path = mount("ro") / "it.db"
    with pytest.raises(StoreError, match=f"^{re.escape(str(path))}: read-only file system$"):
        await SqliteStore(path).open()


async def test_a_file_that_cannot_be_written_is_refused_and_left_as_it_is(mount: Callable[..., Path]) -> None:
    place = mount("size=4m")
    store = SqliteStore(place / "it.db")
    await store.open()
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(StoreError, match=f"^{re.escape(str(store.path))}: read-only file system$"):
        await store.open()
