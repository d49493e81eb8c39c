"""A copy of a database: whole, checked, as of one moment, or none at all."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trio_ws.errors import StoreError
from trio_ws.store import SqliteStore
from trio_ws.store.backup import back_up

from .records import events


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A database with 20 events, 10 of them in the write-ahead log only, and nobody who has it open."""
    store = SqliteStore(tmp_path / "it.db")
    await store.open()
    await store.commit(events("ada", *range(1, 11)))
    await store.close()
    await store.open()
    await store.commit(events("bob", *range(1, 11)))
    dead = tmp_path / "dead"
    dead.mkdir()
    for name in ("it.db", "it.db-wal"):
        shutil.copy(tmp_path / name, dead)
    await store.close()
    return dead / "it.db"


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_copy_is_one_file_and_all_is_in_it(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "backup.db"
    target.parent.mkdir()
    copied = back_up(source, target)
    assert (copied.users, copied.events, copied.size) == (2, 20, target.stat().st_size)
    assert left(target.parent) == {"backup.db"}
    assert oct(target.stat().st_mode & 0o777) == "0o600"
    store = SqliteStore(target)
    await store.open()
    for user in ("ada", "bob"):
        kept = await store.load(user)
        assert kept is not None
        assert [event.seq for event in kept.events] == list(range(1, 11))
        assert kept.user.epoch == f"epoch of {user}"
    await store.close()


async def test_a_copy_may_begin_anew(source: Path, tmp_path: Path) -> None:
    back_up(source, tmp_path / "backup.db", new_epochs=True)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as db:
        epochs = [epoch for (epoch,) in db.execute("SELECT epoch FROM users")]
    assert len(set(epochs)) == 2
    assert all(re.fullmatch("[0-9a-f]{24}", epoch) for epoch in epochs)


async def test_what_can_not_be_copied_leaves_nothing(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StoreError, match="it is a database of something else"):
        back_up(other, target)
    with pytest.raises(StoreError, match="unable to open database file"):
        back_up(tmp_path / "missing.db", target)
    with pytest.raises(StoreError, match=f"^{re.escape(str(tmp_path / 'nowhere'))}/backup.db: no such file"):
        back_up(source, tmp_path / "nowhere" / "backup.db")
    with sqlite3.connect(source) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with source.open("r+b") as file:
        content = file.read()
        file.seek(4096 * (content.index(b"id-7") // 4096))
        file.write(b"\xa5" * 64)
    with pytest.raises(StoreError, match=r"is damaged|malformed"):
        back_up(source, target)
    assert "backup.db" not in left(tmp_path)
    assert not any(name.endswith(".partial") for name in left(tmp_path))


async def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match=f"^{re.escape(str(target))} is there already$"):
        back_up(source, target)
    assert target.read_text() == "precious"
