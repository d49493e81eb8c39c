"""Three nodes take users from each other while Redis is killed and their links to it break: who owns a log writes it,
what was written stays, and a seq is one event's for ever."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
from loopback.redis import RedisServer, Sentinels, until
from ordeal.forwarder import Forwarder

from trio_ws import RedisStore, StoreError
from trio_ws.store import Fenced

from ..store.records import events

USERS = ("ada", "bob", "cyd")
FAULTS = 16


@attrs.define
class Written:
    """What commits have returned for.

    Attributes:
      ids: by user and seq.
      fenced: how often a node was told that it is the owner no more.
      failed: how often a call failed otherwise.
      over: no more is to be begun.
    """

    ids: dict[tuple[str, int], str] = attrs.Factory(dict)
    fenced: int = 0
    failed: int = 0
    over: bool = False

    async def has(self, enough: int) -> bool:
        """Whether so many commits have returned."""
        return len(self.ids) >= enough

    async def was_fought_for(self) -> bool:
        """Whether nodes have come in each other's way."""
        return min(len(self.ids), self.fenced) > 10


async def settle(store: RedisStore, user: str, seq: int, id: str, written: Written) -> None:
    """Commit one event, again and again until it is known what came of it.

    Raises:
      Fenced: this node is not the owner.
    """
    while True:
        try:
            await store.commit(events(user, seq, id=id))
        except Fenced:
            raise
        except StoreError:
            written.failed += 1
            await trio.sleep(0.01)
        else:
            break
    assert written.ids.setdefault((user, seq), id) == id


async def work(store: RedisStore, rng: random.Random, written: Written) -> None:
    """Take a user from whoever has it, write some events behind what there is, and go on with another."""
    names = itertools.count()
    while not written.over:
        user = rng.choice(USERS)
        try:
            owner = await store.claim(user)
            if owner.node != store.node:
                owner = await store.claim(user, owner.token)
            if owner.node != store.node:
                continue
            log = await store.load(user)
            head = log.user.head if log else 0
            for seq in range(head + 1, head + rng.randint(2, 6)):
                await settle(store, user, seq, f"{store.node}-{next(names)}", written)
        except Fenced as fenced:
            written.fenced += 1
            if fenced.rolled_back:
                raise
        except StoreError:
            written.failed += 1
            await trio.sleep(0.01)


async def look(store: RedisStore, written: Written) -> None:
    """All is there that commits returned for, and no hole."""
    for user in USERS:
        owner = await store.claim(user)
        await store.claim(user, owner.token)
        log = await store.load(user)
        assert log is not None
        there = {event.seq: event.id for event in log.events}
        assert list(there) == list(range(1, log.user.head + 1))
        for (whose, seq), id in written.ids.items():
            assert whose != user or there[seq] == id


@asynccontextmanager
async def node(server: RedisServer) -> AsyncIterator[tuple[RedisStore, Forwarder]]:
    """A node's store, and the link that it has to Redis."""
    link = Forwarder(lambda: [("127.0.0.1", server.port)])
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(link.serve, "127.0.0.1")
        store = RedisStore(f"redis://{host}:{port}")
        await nursery.start(store.run)
        await store.open()
        yield store, link
        nursery.cancel_scope.cancel()


async def break_things(server: RedisServer, links: list[Forwarder], rng: random.Random) -> None:
    """One fault after the other; at the end all is as it should be."""
    for kind in rng.sample(["kill", "pause", "cut", "stall"] * (FAULTS // 4), FAULTS):
        await trio.sleep(rng.uniform(0.02, 0.06))
        seconds = rng.uniform(0, 0.1)
        if kind == "kill":
            server.kill()
            await trio.sleep(seconds)
            await server.start()
        elif kind == "pause":
            server.pause()
            await trio.sleep(seconds)
            server.go_on()
        elif kind == "cut":
            rng.choice(links).cut(2 * seconds)
        else:
            rng.choice(links).stall(2 * seconds)


async def test_a_log_is_written_by_its_owner_only_and_keeps_what_was_written(redis_directory: Path) -> None:
    rng = random.Random(3)
    written = Written()
    async with (
        RedisServer(redis_directory, aof="always") as server,
        node(server) as (first, a),
        node(server) as (second, b),
        node(server) as (third, c),
    ):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for store in (first, second, third):
                    nursery.start_soon(work, store, random.Random(rng.random()), written)
                await break_things(server, [a, b, c], rng)
                await until(written.was_fought_for)
                written.over = True
        await look(first, written)
    assert written.failed


async def test_after_a_failover_all_is_there_that_a_replica_had(redis_directory: Path) -> None:
    written = Written()
    async with Sentinels(redis_directory, aof="always") as sentinels, trio.open_nursery() as nursery:
        store = RedisStore(sentinels.url, wait_replicas=1)
        await nursery.start(store.run)
        await store.open()
        with trio.fail_after(60):
            async with trio.open_nursery() as working:
                working.start_soon(work, store, random.Random(4), written)
                await until(partial(written.has, 50))
                sentinels.primary.kill()
                await sentinels.wait_primary(sentinels.replica)
                there = len(written.ids)
                await sentinels.primary.start()  # it becomes the other's replica
                await until(partial(written.has, there + 50))
                written.over = True
        await look(store, written)
        nursery.cancel_scope.cancel()
    assert not written.fenced
