"""What the store in Redis costs: `scripts/measure redis-store`.

Commits: a process that does nothing else commits batches one after the other, as a busy node does: new critical events
of 180 bytes, what was confirmed of those before, where the sessions are, and what has left the logs. All events of a
batch are of one user, or each of another. CPU is the processes' own clocks, that of Redis and that of the node. Memory:
what `used_memory` of Redis grows by.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import trio
from loopback.redis import RedisServer
from loopback.server import cpu_of

from trio_ws.core.records import Batch, EventRecord, Removal, SessionRecord, UserRecord
from trio_ws.redis import RedisStore

SIZES: Final = 1, 10, 100
PAYLOAD: Final = b'{"run":7,"tool":"search","text":"' + b"x" * 146 + b'"}'
EPOCH: Final = "Kx2Yw0cGq9d8Zt5LmN3rT1sV"


def event(user: str, seq: int) -> EventRecord:
    flags = (False, True, False, True, False)  # merge, tracked, truncated, owned_id, confirmed
    id = f"01890c5e-4f7a-7bbb-8c3d-{seq:012}"
    return EventRecord(user, seq, seq, id, "tool_completed", 3, PAYLOAD, time.time(), None, None, *flags)


def step(user: str, seq: int, count: int) -> Batch:
    """So many events of one user, and that those of the last step were acked, and have left the log."""
    now = time.time()
    head, before = seq + count - 1, seq - count
    return Batch(
        events=[event(user, n) for n in range(seq, seq + count)],
        users=[UserRecord(user, EPOCH, head, head, seq - 1, now + 360, False, None)],
        sessions=[SessionRecord("s-Zt5LmN3rT1sVKx2Yw0c", user, 0, seq - 1, (), now, None)],
        removed=[Removal(user, before, seq - 1, "settled", True)] if before > 0 else [],
    )


def joined(batches: list[Batch]) -> Batch:
    whole = Batch()
    for batch in batches:
        whole.events += batch.events
        whole.users += batch.users
        whole.sessions += batch.sessions
        whole.removed += batch.removed
    return whole


async def commits(store: RedisStore, server: RedisServer, size: int, users: int, seconds: float) -> str:
    """Commit batches of `size` events, of one user, or of as many users, for some seconds."""
    names = [f"{size}-{users}-{n}" for n in range(users)]
    for name in names:
        await store.claim(name)
    each, took, seq = size // users, [], 1
    used, own, end = cpu_of(server.pid or 0), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        batch = joined([step(name, seq, each) for name in names])
        began, before = time.perf_counter(), time.process_time()
        await store.commit(batch)
        took.append(time.perf_counter() - began)
        own += time.process_time() - before
        seq += each
    used = cpu_of(server.pid or 0) - used
    events = len(took) * size
    took.sort()
    return (
        f"{len(took) / sum(took):6.0f} commits/s, {events / sum(took):7.0f} events/s; CPU an event: Redis "
        f"{used / events * 1e6:5.1f} µs, node {own / events * 1e6:5.1f} µs; a commit takes "
        f"{statistics.median(took) * 1e3:.2f} ms, p99 {took[int(0.99 * len(took))] * 1e3:.2f} ms"
    )


async def ownership(store: RedisStore, server: RedisServer) -> None:
    """Print what it costs to have a log."""
    names = [f"owned-{n}" for n in range(2000)]

    async def claim() -> None:
        for name in names:
            await store.claim(name)
            await store.load(name)

    async def look() -> None:
        for at in range(0, len(names), 500):
            await store.lost(names[at : at + 500])

    async def release() -> None:
        await store.release(names)

    for what, act in (("claimed and loaded", claim), ("looked at", look), ("released", release)):
        used, own = cpu_of(server.pid or 0), time.process_time()
        await act()
        used, own = cpu_of(server.pid or 0) - used, time.process_time() - own
        print(
            f"a log is {what}: Redis {used / len(names) * 1e6:.1f} µs, node {own / len(names) * 1e6:.1f} µs"
        )


async def memory(store: RedisStore, server: RedisServer) -> None:
    """Print what users and held events take."""
    count, of_each = 1000, 100
    names = [f"user-{n:06}" for n in range(count)]

    async def grown(since: int) -> int:
        info = (await server.call("INFO", "memory")).decode()
        return int(info.partition("used_memory:")[2].split()[0]) - since

    before = await grown(0)
    for name in names:
        await store.claim(name)
    empty = await grown(before)
    for at in range(0, count, 100):
        await store.commit(joined([step(name, 1, 0) for name in names[at : at + 100]]))
    idle = await grown(before)
    for name in names:
        batch = step(name, 1, of_each)
        batch.removed = []
        await store.commit(batch)
    full = await grown(before)
    for name in names:
        await store.commit(Batch(removed=[Removal(name, 1, of_each, "settled", True)]))
    keys = await grown(before)
    print(
        f"memory: a user who is connected and of whom nothing is kept {empty / count:.0f} bytes; with a log and a "
        f"session {idle / count:.0f}; an event of {len(PAYLOAD)} bytes {(full - idle) / count / of_each:.0f}, "
        f"its publisher's key when it is gone {(keys - idle) / count / of_each:.0f}"
    )


async def measure(seconds: float) -> None:
    """Print all of it."""
    with tempfile.TemporaryDirectory(prefix="trio-ws-") as directory:
        for aof in ("always", "everysec", None):
            server = RedisServer(Path(directory) / str(aof), aof=aof)
            await server.start()
            store = RedisStore(f"unix://{server.socket}")
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(store.run)
                    for size in SIZES:
                        for users in {1, size}:
                            told = await commits(store, server, size, users, seconds)
                            print(f"AOF {aof or 'off'}, {size:3} events of {users:3} users a commit: {told}")
                    if aof is None:
                        await ownership(store, server)
                        await memory(store, server)
                    nursery.cancel_scope.cancel()
            finally:
                server.kill()
