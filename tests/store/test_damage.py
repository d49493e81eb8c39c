"""A database with something wrong in it: all else is delivered, clients are told what is missing, and nothing dies."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.hub.peers import Peer
from trio_ws.config import Config
from trio_ws.core.gaps import Run as Gone
from trio_ws.core.records import Batch, KeyRecord
from trio_ws.core.run_grammar import Happened
from trio_ws.core.runs import Run
from trio_ws.errors import StoreUnavailable
from trio_ws.hub import Hub, open_hub
from trio_ws.store import SqliteStore, rows

from .records import event, events, log, session

NONSENSE = {
    "text": "'x'",
    "blob": "x'ff00'",
    "negative": "-1",
    "beyond": "9007199254740993",
    "infinite": "9e999",
    "no UTF-8": "CAST(x'ff41' AS TEXT)",
    "JSON of another kind": """'{"a": [1e999, null]}'""",
    "deep": f"'{'[' * 100_000}'",
}
TABLES = {
    "users": rows.USER,
    "events": rows.EVENT,
    "sessions": rows.SESSION,
    "keys": rows.KEY,
    "runs": rows.RUN,
}
CASES = [
    (table, column, kind)
    for table, columns in TABLES.items()
    for column in columns.split(", ")[1:]
    for kind in NONSENSE
]


def log_of(user: str) -> Batch:
    """Three events that nobody has confirmed, a session that has acked the first, a key of what is gone, and a run that
    has ended."""
    run = Run("r", 10)
    run.catch_up(Happened("agent_started", b"{}", 1, 1_700_000_000.0, "a"))
    run.catch_up(Happened("agent_lost", b'{"outcome":"lost"}', 2, 1_700_000_001.0, "b"))
    seqs = (1, 2, 4)
    return Batch(
        events=[event(user, seq, payload=b"%d" % seq, tracked=True) for seq in seqs],
        users=[log(user, 4, gone=(Gone(3, 3, "evicted", {"note": 1}, 0),))],
        sessions=[session(user, f"tab-of-{user}", acked=1)],
        keys=[(user, KeyRecord("gone", 3, "evicted"))],
        runs=[run.record(user, 2, 2)],
    )


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def set_aside(path: Path) -> list[tuple[str, Any]]:
    """What lies in the quarantine."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT place, content FROM quarantine ORDER BY place").fetchall()
    return [(place, json.loads(content)) for place, content in found]


async def made(path: Path, *batches: Batch) -> Path:
    """A file with all of these in it."""
    store, whole = SqliteStore(path), Batch()
    for batch in batches:
        for name, records in attrs.asdict(batch, recurse=False).items():
            getattr(whole, name).extend(records)
    await store.open()
    await store.commit(whole)
    await store.close()
    return path


@asynccontextmanager
async def serving(path: Path, **limits: Any) -> AsyncIterator[Hub]:
    """A hub over the file; at its end the books balance."""
    with trio.fail_after(60):
        config = Config(max_connections=1000, max_events=10_000, **limits)
        async with open_hub(config, store=SqliteStore(path)) as hub:
            yield hub
            assert hub.statistics().balanced
            for attachment in list(hub.engine.attachments):
                attachment.detach()


async def connected(hub: Hub, user: str, *, upto: int, **ask: Any) -> Peer:
    """A client that has been given all up to `upto`, and has acked it."""
    await hub.load(user, to_connect=True)
    peer = Peer(hub, user, acks=True).connect(**ask)
    assert peer.attachment is not None
    while min(peer.cursor, peer.attachment.session.acked) < upto:  # noqa: ASYNC110
        await trio.sleep(0.001)
    assert not peer.faults
    return peer


def gaps(peer: Peer) -> list[tuple[int, int, str, int]]:
    return [(gap["from"], gap["to"], gap["reason"], gap["critical"]) for gap in peer.kinds("gap")]


async def test_whatever_is_wrong_with_a_row_all_else_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "it.db"
    users = {f"{table}-{column}-{kind}": (table, column, kind) for table, column, kind in CASES}
    await made(path, *(log_of(user) for user in users), log_of("ada"))
    tamper(
        path,
        *(
            f"UPDATE {table} SET {column} = {NONSENSE[kind]} WHERE user = '{user}'"
            + (" AND first = 2" if table == "events" else "")
            for user, (table, column, kind) in users.items()
        ),
    )
    async with serving(path) as hub:
        told = await all_connected(hub, users, upto=4)
        for user, (table, column, _) in users.items():
            got = {event["seq"]: event["payload"] for event in told[user].kinds("event")}
            whole = table != "events" or column == "confirmed" or 2 in got
            assert got == ({1: 1, 2: 2, 4: 4} if whole else {1: 1, 4: 4}), user
            lost = [gap for gap in told[user].kinds("gap") if gap["from"] <= 2 <= gap["to"]]
            assert [gap["reason"] for gap in lost] == ([] if whole else ["reset"]), user
        assert (await connected(hub, "ada", upto=4)).seqs == [1, 2, 4]
        await all_written(hub)
        aside = set_aside(path)
        assert hub.stats()["store"]["quarantined"] == len(aside) > 100
        assert {place for place, _ in aside} == set(TABLES)
        assert hub.stats()["store"]["state"] == "ok"
        receipt = await hub.publish("ada", "agent_started")
        assert (receipt.epoch, receipt.seq) == ("epoch of ada", 5)
    async with serving(path) as hub:  # what was set aside stays there, and what was acked is confirmed
        again = await all_connected(hub, users, upto=4, start="pending")
        for user in users:
            assert again[user].welcome["epoch"] == told[user].welcome["epoch"]
            assert again[user].seqs == [], user
        assert set_aside(path) == aside
        assert hub.stats()["store"]["quarantined"] == len(aside)


async def all_connected(hub: Hub, users: Iterable[str], **ask: Any) -> dict[str, Peer]:
    """Clients of all of these."""
    peers: dict[str, Peer] = {}

    async def connect(user: str) -> None:
        peers[user] = await connected(hub, user, **ask)

    async with trio.open_nursery() as nursery:
        for user in users:
            nursery.start_soon(connect, user)
    return peers


async def all_written(hub: Hub) -> None:
    """Wait until all is durable: acks wait for company, and the 2.5 s that a drain gives may be too few for them."""
    durability = hub.engine.durability
    assert durability is not None
    while not durability.idle:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def test_a_critical_event_that_is_damaged_counts_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await made(tmp_path / "it.db", log_of("ada"))
    tamper(path, "UPDATE events SET payload = '7' WHERE first = 2")
    async with serving(path) as hub:
        with caplog.at_level(logging.ERROR):
            peer = await connected(hub, "ada", upto=4)
        assert gaps(peer)[0] == (2, 2, "reset", 1)
        assert peer.seqs == [1, 4]
    [told] = [vars(record) for record in caplog.records if "set aside" in record.msg]
    assert (told["rows"], told["table"], told["key"]) == (1, "events", "2")
    assert told["why"] == "its checksum is another"
    [(place, content)] = set_aside(path)
    assert (place, content[:4]) == ("events", ["ada", 2, 2, "id-2"])


async def test_where_not_even_the_seq_is_left_all_that_is_missing_may_have_been_lost(tmp_path: Path) -> None:
    path = await made(tmp_path / "it.db", log_of("ada"))
    tamper(path, "UPDATE events SET first = 'x', seq = 'y' WHERE first = 2")
    async with serving(path) as hub:
        peer = await connected(hub, "ada", upto=4)
        assert peer.seqs == [1, 4]
        assert gaps(peer) == [(2, 3, "reset", 0)]


async def test_of_a_rest_what_is_damaged_is_lost_and_all_else_comes(tmp_path: Path) -> None:
    batch = events("ada", *range(1, 21))
    batch.users = [log("ada", 20, rest=11)]
    path = await made(tmp_path / "it.db", batch)
    tamper(
        path,
        "UPDATE events SET payload = '7' WHERE first = 15",
        "UPDATE events SET first = 'x' WHERE first = 5",
        "UPDATE events SET expires = 'x', id = x'00' WHERE first = 18",
    )
    async with serving(path) as hub:
        peer = await connected(hub, "ada", upto=20)
        assert peer.seqs == [seq for seq in range(1, 21) if seq not in (5, 15, 18)]
        assert [gap[:3] for gap in gaps(peer)] == [(5, 5, "reset"), (15, 15, "reset"), (18, 18, "reset")]
        assert hub.stats()["store"]["quarantined"] == 3


async def test_of_a_long_log_whose_row_is_gone_memory_is_given_a_part(tmp_path: Path) -> None:
    path = await made(tmp_path / "it.db", events("ada", *range(1, 501)))
    tamper(path, "DELETE FROM users")
    async with serving(path, max_events_per_user=200) as hub:
        await hub.load("ada")
        described = hub.describe("ada")
        assert described is not None
        assert (described["buffer"]["events"], described["buffer"]["stored"]) == (200, 300)
        peer = await connected(hub, "ada", upto=500)
        assert peer.seqs == list(range(1, 501))


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM users WHERE user = 'ada'",
        "UPDATE users SET head = 3 WHERE user = 'ada'",
        "UPDATE users SET epoch = x'00' WHERE user = 'ada'",
    ],
)
async def test_a_log_whose_row_is_gone_goes_on_in_a_new_epoch_with_all_its_events(
    tmp_path: Path, harm: str
) -> None:
    path = await made(tmp_path / "it.db", log_of("ada"), log_of("bob"))
    tamper(path, harm)
    resume = {"session": "tab-of-ada", "epoch": "epoch of ada", "seq": 4}
    async with serving(path) as hub:
        assert sorted(hub.users()) == ["ada", "bob"]
        peer = await connected(hub, "ada", upto=5, **resume)
        welcome = peer.welcome
        assert not welcome["resumed"]
        assert welcome["epoch"] != "epoch of ada"
        assert peer.seqs == [1, 2, 4]
        assert gaps(peer) == [(3, 3, "reset", 0), (5, 5, "reset", 0)]
        assert (await hub.publish("ada", "agent_started")).seq == 6
    async with serving(path) as hub:
        again = await connected(hub, "ada", upto=6, session=welcome["session"], epoch=welcome["epoch"], seq=5)
        assert again.welcome["resumed"]
        assert again.seqs == [6]
    places = [place for place, _ in set_aside(path)]
    assert places == ["sessions", "users"]


async def test_of_two_events_of_one_seq_the_first_is_delivered(tmp_path: Path) -> None:
    joined = event("ada", 4, first=2, payload=b'"joined"')
    path = await made(tmp_path / "it.db", Batch(events=[joined], users=[log("ada", 5)]))
    await made(path, Batch(events=[event("ada", seq) for seq in (3, 5)]))
    async with serving(path) as hub:
        peer = await connected(hub, "ada", upto=5)
        assert [(event["seq"], event["payload"]) for event in peer.kinds("event")][:1] == [(4, "joined")]
        assert peer.seqs == [4, 5]
    assert [content[1] for _, content in set_aside(path)] == [3]


async def test_without_its_row_a_session_goes_on_by_what_its_client_knows(tmp_path: Path) -> None:
    path = await made(tmp_path / "it.db", log_of("ada"))
    tamper(path, "DELETE FROM sessions")
    async with serving(path) as hub:
        peer = await connected(hub, "ada", upto=4, session="tab-of-ada", epoch="epoch of ada", seq=1)
        assert peer.welcome["resumed"]
        assert peer.welcome["session"] != "tab-of-ada"
        assert peer.seqs == [2, 4]


async def test_a_user_whose_name_is_damaged_keeps_nobody_from_starting(tmp_path: Path) -> None:
    path = await made(tmp_path / "it.db", log_of("ada"), log_of("bob"))
    tamper(path, "UPDATE users SET user = CAST(x'ff41' AS TEXT), due = 5.0 WHERE user = 'bob'")
    async with serving(path) as hub:
        assert sorted(hub.users()) == ["ada", "bob"]
        assert (await connected(hub, "bob", upto=4)).seqs == [1, 2, 4]
        store = hub.engine.durability
        assert store is not None
        await store.store.due(10.0, 10)


async def some_pages(path: Path) -> Path:
    """A file of three users, each with many pages."""
    users = ("ada", "bob", "eve")
    return await made(path, *(events(user, *range(1, 100), payload=content_of(user)) for user in users))


def content_of(user: str) -> bytes:
    return b'"%s"' % (user.encode() * 300)


def tear(path: Path, user: str, id: str) -> None:
    """Damage the page that this event is on, one that holds nothing but rows."""
    content = path.read_bytes()
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    [number] = [
        n
        for n, page in enumerate(pages)
        if content_of(user) in page and id.encode() in page and page[0] == 10
    ]
    with path.open("r+b") as file:
        file.seek(4096 * number)
        file.write(b"\xa5" * 64)


async def test_pages_that_are_damaged_cost_those_who_need_them(tmp_path: Path) -> None:
    path = await some_pages(tmp_path / "it.db")
    tear(path, "bob", "id-51")
    async with serving(path) as hub:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="malformed"):
                await hub.publish("bob", "agent_started")
        assert len((await connected(hub, "ada", upto=99)).seqs) == 99
        assert (await hub.publish("eve", "agent_started")).seq == 100
        while (found := hub.stats()["store"]["check"]) == "running":  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert found != "ok"
        assert hub.stats()["store"]["state"] == "ok"


async def test_where_a_commit_finds_damage_nothing_more_is_accepted_and_what_is_held_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws.hub.durability.PATIENCE", 0.2)
    monkeypatch.setattr("trio_ws.hub.draining.COMMIT_GRACE", 0.1)
    path = await some_pages(tmp_path / "it.db")
    async with serving(path, drain_timeout=0.1) as hub:
        await hub.load("eve")
        tear(path, "eve", "id-99")
        with pytest.raises(StoreUnavailable, match="malformed"):
            await hub.publish("eve", "agent_started")
        assert hub.stats()["store"]["state"] == "failing"
        for user in ("ada", "eve"):
            assert len((await connected(hub, user, upto=99)).seqs) == 99
