"""Databases of older versions are brought up to today's and gone on with; those of newer ones, and what is no database
of ours, are left as they are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.hub.peers import Peer
from trio_ws.errors import StoreError
from trio_ws.hub import open_hub
from trio_ws.store import SqliteStore
from trio_ws.store.schema import APPLICATION_ID, MIGRATIONS

# Made by those versions, and turned into text: what a person reads, and a diff shows.
VERSIONS = sorted((Path(__file__).parent / "data").glob("version-*.sql"))


def from_text(script: Path, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script.read_text())
    return path


def schema_of(path: Path) -> tuple[int, list[tuple[str, str]]]:
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return version, db.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql > '' ORDER BY name"
        ).fetchall()


def test_there_is_a_database_of_each_older_version() -> None:
    assert [path.stem for path in VERSIONS] == [f"version-{n}" for n in range(1, len(MIGRATIONS))]


@pytest.mark.parametrize("script", VERSIONS, ids=lambda path: path.stem)
async def test_a_database_of_an_older_version_is_gone_on_with(script: Path, tmp_path: Path) -> None:
    path, fresh = from_text(script, tmp_path / "old.db"), SqliteStore(tmp_path / "fresh.db")
    with closing(sqlite3.connect(path)) as db:
        epochs, heads = (dict(db.execute(f"SELECT user, {one} FROM users")) for one in ("epoch", "head"))
        (session,) = db.execute("SELECT session FROM sessions").fetchone()
        waiting = [seq for (seq,) in db.execute("SELECT seq FROM events WHERE user = 'ada' AND seq > 4")]
        (newest,) = db.execute("SELECT max(ts) FROM events").fetchone()
    await fresh.open()
    await fresh.close()
    async with open_hub(store=SqliteStore(path), wall_clock=lambda: newest + 5) as hub:
        for user in epochs:
            await hub.load(user, to_connect=True)
        ada = Peer(hub, "ada", acks=True).connect(session=session, epoch=epochs["ada"], seq=4)
        welcome = ada.welcome
        assert (welcome["session"], welcome["epoch"], welcome["resumed"]) == (session, epochs["ada"], True)
        bob = Peer(hub, "bob").connect()
        assert bob.welcome["epoch"] == epochs["bob"]
        with trio.fail_after(10):
            while ada.cursor < heads["ada"] or bob.cursor < heads["bob"]:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert ada.seqs == waiting
        assert [event["payload"] for event in bob.kinds("event")] == [{"share": 0.5}, None]
        for id, seq in (("run-0", 1), ("run-2", 3), ("done", 10)):
            again = await hub.publish("ada", "agent_started", id=id)
            assert (again.duplicate, again.epoch, again.seq) == (True, epochs["ada"], seq)
        assert (await hub.publish("ada", "agent_started")).seq == heads["ada"] + 1
        assert hub.stats()["store"]["quarantined"] == 0
        for peer in (ada, bob):
            assert not peer.faults
            peer.die()
    assert schema_of(path) == schema_of(tmp_path / "fresh.db")


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = from_text(VERSIONS[0], tmp_path / "old.db")
    before = schema_of(path)
    broken = (*MIGRATIONS[:1], "CREATE TABLE another (a); CREATE TABLE users (a);")
    monkeypatch.setattr("trio_ws.store.schema.MIGRATIONS", broken)
    with pytest.raises(StoreError, match="table users already exists"):
        await SqliteStore(path).open()
    assert schema_of(path) == before


def newer(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99; CREATE TABLE t (a)"
        )
    return f"its schema is version 99, and this version of trio-ws knows {len(MIGRATIONS)}"


def of_another_program(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('http://a.test')")
    return "it is a database of something else"


def text(path: Path) -> str:
    path.write_text("dear diary, " * 500)
    return "file is not a database"


def cut_short(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSIONS[0].read_text())
    path.write_bytes(path.read_bytes()[:-4096])
    return "database disk image is malformed"


@pytest.mark.parametrize("make", [newer, of_another_program, text, cut_short])
async def test_what_is_not_ours_is_refused_and_left_as_it_is(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    path = tmp_path / "it.db"
    told = make(path)
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"^{re.escape(f'{path}: {told}')}$"):
        await store.open()
    await store.close()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["it.db"]  # noqa: ASYNC240


async def test_what_can_be_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^{re.escape(str(tmp_path))}: is a directory$"):
        await SqliteStore(tmp_path).open()
    missing = tmp_path / "nowhere" / "it.db"
    with pytest.raises(StoreError, match=f"^{re.escape(str(missing))}: no such file or directory$"):
        await SqliteStore(missing).open()
