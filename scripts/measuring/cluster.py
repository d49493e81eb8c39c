"""What it costs that a client, its user's log and the publisher are at different nodes; and what an owner's death does.

Three processes of `trio-ws serve` over one Redis (AOF always), on all cores alike. The log of a user is where the first
client of it came: so the ways that an event can take are told apart by where else one connects and publishes.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import trio
from loopback.redis import RedisServer
from loopback.server import Server

import trio_ws

WAYS: Final = {
    "all at one node": (0, 0),
    "published at another": (1, 0),
    "relayed to another": (0, 1),
    "published at a second, relayed to a third": (1, 2),
}
"""Of the node that has the log, 0: at which one is published, and where the client is."""

BATCH: Final = 100


ROOM: Final = "--max-events", "100000", "--max-events-per-user", "5000"
"""What each node is told."""


def start(redis: RedisServer) -> Server:
    """One more node."""
    return Server.start("--store", redis.url, *ROOM)


class Tab:
    """A client, and when it has processed what."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self.came = trio.Event()
        self.live = trio.Event()

    def on_state(self, state: object) -> None:
        if getattr(state, "name", "") == "live":
            self.live.set()

    async def run(self, user: str, urls: list[str]) -> None:
        """Be connected to the first of these that can be reached, until cancelled."""

        async def dial() -> trio.abc.Stream:
            for url in urls:
                host, port = url.removeprefix("ws://").removesuffix("/ws").split(":")
                try:
                    return await trio.open_tcp_stream(host, int(port))
                except OSError:
                    continue
            raise OSError("none can be reached")

        async with trio_ws.connect(
            urls[0], user=user, on_state=self.on_state, bye=False, open_stream=dial
        ) as client:
            async for event in client:
                self.at.setdefault(event.payload, time.monotonic())
                self.came.set()
                self.came = trio.Event()

    async def until(self, count: int) -> None:
        """Wait until so many were processed."""
        with trio.fail_after(60):
            while len(self.at) < count:
                await self.came.wait()


@asynccontextmanager
async def tabs(user: str, *urls: list[str]) -> AsyncIterator[list[Tab]]:
    """Clients of one user, which come one after the other."""
    async with trio.open_nursery() as nursery:
        found = []
        for where in urls:
            found.append(Tab())
            nursery.start_soon(found[-1].run, user, where)
            await found[-1].live.wait()
        yield found
        nursery.cancel_scope.cancel()


async def post(client: httpx.AsyncClient, user: str, numbers: list[int]) -> None:
    """Publish critical events with these payloads, in one batch."""
    lines = [
        json.dumps({"user": user, "id": f"{user}-{n}", "type": "tool_completed", "payload": n})
        for n in numbers
    ]
    answer = await client.post("/v1/events", content="\n".join(lines))
    if answer.status_code != 200 or '"error"' in answer.text:
        raise RuntimeError(answer.text)


def percentiles(seconds: list[float]) -> str:
    """The middle one, and that which all but one in a hundred stay under; in milliseconds."""
    ranked = sorted(seconds)
    return f"p50 {1000 * ranked[len(ranked) // 2]:7.1f} ms   p99 {1000 * ranked[-1 - len(ranked) // 100]:7.1f} ms"


async def one_way(nodes: list[Server], way: str, events: int, flood: int) -> None:
    """Latency at 50 events a second, then CPU of a flood of as many as go."""
    published_at, client_at = (nodes[n] for n in WAYS[way])
    user = way.replace(" ", "-")
    # The first client makes node 0 the owner, and stays; where all is at one node, it is the one that is measured.
    urls = [[nodes[0].ws]] if client_at is nodes[0] else [[nodes[0].ws], [client_at.ws]]
    async with (
        tabs(user, *urls) as found,
        httpx.AsyncClient(base_url=published_at.http, timeout=30) as client,
    ):
        tab, began = found[-1], {}
        for n in range(events):
            began[n] = time.monotonic()
            await post(client, user, [n])
            await trio.sleep(0.02)
        await tab.until(events)
        latency = [tab.at[n] - began[n] for n in range(events)]
        before = [node.cpu for node in nodes]
        for first in range(events, events + flood, BATCH):
            await post(client, user, list(range(first, first + BATCH)))
        await tab.until(events + flood)
        await trio.sleep(0.2)
        used = [1e6 * (node.cpu - then) / flood for node, then in zip(nodes, before, strict=True)]
        shown = " + ".join(f"{each:5.0f}" for each in used)
        print(
            f"{way:44} {percentiles(latency)}   CPU µs/event at each node {shown} = {sum(used):5.0f}",
            flush=True,
        )


async def deaths(redis: RedisServer, nodes: list[Server], count: int, *, silently: bool) -> None:
    """Kill the owner, or have it stand still, and see when its client at another node has the next event."""
    took, seen = [], []
    for n in range(count):
        user = f"{'still' if silently else 'killed'}-{n}"
        async with (
            tabs(user, [nodes[0].ws], [nodes[1].ws]) as (_, tab),
            httpx.AsyncClient(base_url=nodes[2].http, timeout=30) as client,
        ):
            await post(client, user, [0])
            await tab.until(1)
            died = time.monotonic()
            nodes[0].process.send_signal(signal.SIGSTOP if silently else signal.SIGKILL)
            while True:
                try:
                    await post(client, user, [1])
                    break
                except (RuntimeError, httpx.HTTPError):
                    await trio.sleep(0.05)
            took.append(time.monotonic() - died)
            await tab.until(2)
            seen.append(tab.at[1] - died)
        nodes[0].kill()
        nodes[0] = start(redis)
    how = "owner stopped (SIGSTOP)" if silently else "owner killed (SIGKILL)"
    print(
        f"{how:44} published elsewhere after {percentiles(took)}; processed by its client after "
        f"{percentiles(seen)}, at most {max(seen):.2f} s, of {count}",
        flush=True,
    )


async def measure(events: int, flood: int, kills: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="trio-ws-") as folder:
        redis = RedisServer(Path(folder) / "redis", aof="always")
        await redis.start()
        nodes: list[Server] = []
        try:
            nodes += [start(redis) for _ in range(3)]
            await trio.sleep(1)  # all know of all
            for way in WAYS:
                await one_way(nodes, way, events, flood)
            await deaths(redis, nodes, kills, silently=False)
            await deaths(redis, nodes, max(1, kills // 4), silently=True)
        finally:
            for node in nodes:
                node.kill()
            redis.kill()
