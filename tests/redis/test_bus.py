"""The bus between nodes, over a real Redis: an outage delays what is told, and loses nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from loopback.redis import RedisServer

from trio_ws.cluster.bus import Bus
from trio_ws.redis import RedisStore


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_what_is_told_while_redis_is_away_is_heard_when_it_is_back(
    redis_directory: Path, nursery: trio.Nursery, how: str
) -> None:
    async with RedisServer(redis_directory) as server:
        buses = []
        for _ in range(2):
            store = RedisStore(server.url)
            await nursery.start(store.run)
            buses.append(Bus(store, nursery))
            nursery.start_soon(buses[-1].run)
        a, b = buses
        heard: list[int] = []
        all_heard = trio.Event()

        def hear(_sender: str, body: bytes) -> None:
            heard.append(int(body))
            if len(heard) == 60:
                all_heard.set()

        b.hear("news", hear)
        node = b._store.node

        async def tell(first: int) -> None:
            for n in range(first, first + 20):
                a.tell(node, "news", b"%d" % n)
                await trio.sleep(0.01)

        await tell(0)
        if how == "killed":
            server.kill()
            await tell(20)
            await server.start()
        else:
            server.pause()
            await tell(20)
            server.go_on()
        await tell(40)
        with trio.fail_after(20):
            await all_heard.wait()
        assert heard == list(range(60))
        assert a.lost == 0
        assert a.deaf_for(node) == 0
