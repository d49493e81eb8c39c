"""Files that an older version of the package has made are brought to today's schema, with all that is in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from trio_ws.core.records import Batch
from trio_ws.store import SqliteStore, rows
from trio_ws.store.schema import APPLICATION_ID, MIGRATIONS

from .records import event, log


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_what_an_older_version_has_written_is_there(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript("".join(MIGRATIONS[:version]))
    old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    old.execute(f"PRAGMA user_version = {version}")
    old.execute(
        "INSERT INTO users (user, epoch, head, reserved, confirmed, due, partial, gone) "
        "VALUES ('ada', 'epoch', 1, 1, 0, NULL, 0, '[]')"
    )
    row = rows.event_row(event("ada", 1))
    old.execute(f"INSERT INTO events ({rows.EVENT}) VALUES ({', '.join('?' * len(row))})", row)
    old.commit()
    old.close()
    store = SqliteStore(path)
    assert (await store.open()).users == ["ada"]
    kept = await store.load("ada")
    assert kept is not None
    assert (kept.user.epoch, kept.user.rest, kept.events) == ("epoch", 0, [event("ada", 1)])
    await store.commit(Batch(users=[log("ada", 2, epoch="epoch", rest=2)], events=[event("ada", 2)]))
    kept = await store.load("ada")
    assert kept is not None
    assert (kept.user.rest, kept.events) == (2, [event("ada", 1)])
    await store.close()
