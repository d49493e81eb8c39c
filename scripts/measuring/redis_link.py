"""What a call to Redis costs, and what a client comes to under cancellation and restarts: `scripts/measure redis`.

It starts a redis-server of its own, and kills it. Where coredis is installed (`.venv/bin/pip install coredis`), the
same is asked of that, by turns. CPU is this process's own clock: what the client costs, not what Redis does.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from loopback.redis import RedisServer, installed

from trio_ws.redis.link import Redis
from trio_ws.redis.script import Script

try:
    import coredis
except ImportError:
    coredis = None

SET: Final = "return redis.call('SET', KEYS[1], ARGV[1])"
VALUE: Final = "x" * 300
CONNECTIONS: Final = 4
"""In coredis's pool where calls are cancelled: so many that are lost are all."""


class Client(Protocol):
    """What is measured of either."""

    async def script(self) -> object:
        """One call of a script."""

    async def many(self) -> object:
        """A hundred, at once."""

    async def subscribe(self, take: Callable[[bytes], None]) -> None:
        """Hand over what is published, for as long as it does."""

    async def publish(self) -> object:
        """To that."""


class Ours:
    """The link of this package."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = Script("set", SET)

    async def script(self) -> object:
        return await self._redis.script(self._script, ["key"], [VALUE])

    async def many(self) -> object:
        return await self._redis.scripts(self._script, [(["key"], [VALUE])] * 100)

    async def subscribe(self, take: Callable[[bytes], None]) -> None:
        await self._redis.subscribe(["channel"], take)

    async def publish(self) -> object:
        return await self._redis.publish("channel", b"hello")


class Coredis:
    """coredis."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._script = redis.register_script(SET)

    async def script(self) -> object:
        return await self._script(keys=["key"], args=[VALUE])

    async def many(self) -> object:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for _ in range(100):
                pipeline.evalsha(self._script.sha, keys=["key"], args=[VALUE])

    async def subscribe(self, take: Callable[[bytes], None]) -> None:
        async with self._redis.pubsub(channels=["channel"]) as subscription:
            async for message in subscription:
                take(message["data"])

    async def publish(self) -> object:
        return await self._redis.publish("channel", "hello")


@asynccontextmanager
async def ours(port: int, connections: int) -> AsyncIterator[Client]:
    """The link, to the server at `port`."""
    async with trio.open_nursery() as nursery:
        redis = Redis(f"redis://127.0.0.1:{port}")
        await nursery.start(redis.run)
        yield Ours(redis)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def theirs(port: int, connections: int) -> AsyncIterator[Client]:
    """coredis, with a pool of so many connections."""
    async with coredis.Redis(host="127.0.0.1", port=port, max_connections=connections) as redis:
        client = Coredis(redis)
        await client.script()
        yield client


CLIENTS: Final = {"trio_ws": ours} | ({"coredis": theirs} if coredis else {})


async def cost(client: Client, calls: int) -> dict[str, tuple[float, float]]:
    """Microseconds of CPU for a call, and calls a second, by how many are under way at once."""
    found = {}
    for name, tasks, each in (
        ("1 task", 1, 1),
        ("10 tasks", 10, 1),
        ("100 tasks", 100, 1),
        ("100 at once by 1 task", 1, 100),
    ):
        call = client.script if each == 1 else client.many
        rounds = max(1, calls // tasks // each)

        async def ask(call: Callable[[], Awaitable[object]] = call, rounds: int = rounds) -> None:
            for _ in range(rounds):
                await call()

        cpu, wall = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(ask)
        done = rounds * tasks * each
        found[name] = (time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - wall)
    return found


async def cancelled(client: Client, calls: int) -> str:
    """Cancel calls, single ones and many at once, at random; does the client answer then?"""
    chance = random.Random(1)

    async def one() -> None:
        with trio.move_on_after(chance.random() * 0.003):
            await chance.choice((client.script, client.many))()

    done = 0
    while done < calls:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        done += 5
        with trio.move_on_after(3) as patience:
            await client.script()
        if patience.cancelled_caught:
            return f"after {done} calls, cancelled at random: answers nothing any more"
    return f"after {done} calls, cancelled at random: answers"


async def restarted(client: Client, server: RedisServer, times: int) -> str:
    """Kill and restart the server under load; what has gathered by then, and whether a subscription still hears?"""
    heard: list[bytes] = []
    failed = 0
    ended = False

    async def listen() -> None:
        nonlocal ended
        await client.subscribe(heard.append)
        ended = True

    async def load() -> None:
        nonlocal failed
        for _ in range(20):
            try:
                with trio.fail_after(2):
                    await client.script()
            except Exception:
                failed += 1
            await trio.sleep(0.002)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        while not heard:
            await client.publish()
            await trio.sleep(0.01)
        before = _gathered()
        for _ in range(times):
            async with trio.open_nursery() as loading:
                for _ in range(3):
                    loading.start_soon(load)
                await trio.sleep(0.01)
                await server.restart()
        count = len(heard)
        with trio.move_on_after(5):
            while len(heard) == count:
                with trio.move_on_after(1):
                    await client.publish()
                await trio.sleep(0.05)
        after = _gathered()
        nursery.cancel_scope.cancel()
    told = "hears" if len(heard) > count else "has ended in silence" if ended else "hears nothing any more"
    descriptors, tasks = (now - then for now, then in zip(after, before, strict=True))
    return (
        f"after {times} restarts: {descriptors:+} file descriptors, {tasks:+} tasks; "
        f"{failed} calls failed; the subscription {told}"
    )


def _gathered() -> tuple[int, int]:
    """Open file descriptors, and tasks."""
    return len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living


async def measure(calls: int, reps: int, restarts: int) -> None:
    """Measure and print; of several runs the median."""
    if not installed():
        raise SystemExit("this needs redis-server")
    if coredis is None:
        print("coredis is not installed: nothing to compare with")
    with tempfile.TemporaryDirectory() as directory:
        async with RedisServer(Path(directory)) as server:
            found: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in CLIENTS}
            for _ in range(reps):
                for name, connected in CLIENTS.items():
                    async with connected(server.port, 100) as client:
                        await client.many()
                        found[name].append(await cost(client, calls))
            for name, runs in found.items():
                for at_once in runs[0]:
                    cpu, rate = (statistics.median(run[at_once][n] for run in runs) for n in (0, 1))
                    print(f"{name}, calls of a script, {at_once}: {cpu:.1f} us of CPU, {rate:,.0f} a second")
            for name, connected in CLIENTS.items():
                with trio.move_on_after(120):
                    async with connected(server.port, CONNECTIONS) as client:
                        print(f"{name}, {await cancelled(client, 1000)}", flush=True)
            for name, connected in CLIENTS.items():
                async with connected(server.port, 100) as client:
                    print(f"{name}, {await restarted(client, server, restarts)}", flush=True)
