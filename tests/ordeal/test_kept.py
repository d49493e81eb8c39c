"""What scripts/chaos finds in Redis, whoever owns a log: what is there, what is missing, and that commits were lost."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
from loopback.redis import RedisServer
from ordeal import kept
from ordeal.journal import Journal, read
from ordeal.kept import KEYS, Kept

from trio_ws import RedisStore

from ..store.records import events


@pytest.fixture
async def store(redis_server: RedisServer, nursery: trio.Nursery) -> RedisStore:
    """A node's, that owns ada and has committed two critical events; one of them is confirmed."""
    node = RedisStore(redis_server.url)
    await nursery.start(node.run)
    await node.open()
    await node.claim("ada")
    batch = events("ada", 1, 2, owned_id=True)
    await node.commit(attrs.evolve(batch, users=[batch.users[0]._replace(confirmed=1)]))
    return node


async def found(
    server: RedisServer, path: Path, promised: list[tuple[str, int]], *, may_renew: bool = False
) -> list[str]:
    """What a look finds wrong."""
    looking = Kept(server.url, Journal(path), may_renew)
    await looking.look({"ada": [(id, seq, "epoch of ada") for id, seq in promised]})
    assert looking.looks == 1
    return [line["what"] for line in read(path)]


async def test_what_was_promised_is_there_though_another_owns_it(
    redis_server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    assert await found(redis_server, tmp_path / "j", [("id-1", 1), ("id-2", 2)]) == []
    await store.commit(events("ada", 3))  # who owns it has noticed nothing


async def test_what_is_missing_is_found(redis_server: RedisServer, store: RedisStore, tmp_path: Path) -> None:
    wrong = await found(redis_server, tmp_path / "j", [("id-1", 2), ("id-3", 3)])
    assert wrong == ["Redis: id-1 of ada is at 1, not at 2", "Redis: id-3 of ada, seq 3, is missing"]


async def test_that_commits_were_lost_is_found(
    redis_server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    await redis_server.call("HSET", KEYS.log("ada"), "void", 1)
    assert await found(redis_server, tmp_path / "j", []) == ["Redis: changes of ada were lost"]


async def test_where_something_may_be_lost_it_has_to_be_noticed(
    redis_server: RedisServer, store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "NOTICED", 0.5)
    wrong = await found(redis_server, tmp_path / "j", [("id-3", 3)], may_renew=True)
    assert wrong == ["Redis: id-3 of ada, seq 3, is missing"]
    await redis_server.call("HSET", KEYS.log("ada"), "void", 1)
    assert await found(redis_server, tmp_path / "k", [("id-3", 3)], may_renew=True) == []
    await redis_server.call("FLUSHALL")
    assert await found(redis_server, tmp_path / "l", [("id-3", 3)], may_renew=True) == []


async def test_it_is_written_down_for_the_checker(
    redis_server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    await Kept(redis_server.url, Journal(tmp_path / "j")).write_down(["ada", "bob"])
    log, nobody = read(tmp_path / "j")
    told = {"user": "ada", "epoch": "epoch of ada", "head": 2, "unconfirmed": [[2, "id-2"]]}
    assert log | told | {"do": "kept", "events": [[1, "id-1"], [2, "id-2"]]} == log
    assert nobody["what"] == "Redis: nothing is known of bob"
