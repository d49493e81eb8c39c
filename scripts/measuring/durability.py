"""What durability costs, and how soon a server that holds much is there again: `scripts/measure durability`.

Cost: a server process is given critical events over HTTP, one after the other by each of so many publishers; a client
processes them. CPU is the server process's own clock, all threads; one run goes over a store in memory, the next over
SQLite, and so on. Start: a file is filled by the store's own code; the time counts from the start of `trio-ws serve`,
imports and all, to the line that tells its address, and to what a client of one of its users is given.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio
from loopback.server import serving

import trio_ws
from trio_ws.core.records import Batch, EventRecord, UserRecord
from trio_ws.store import SqliteStore

OF_EACH: Final = 100
"""Events that are held of each user."""
ROOM: Final = "--max-events", "2000000", "--max-bytes", str(1 << 30)
"""What a server is told, so that it holds all of that."""
PAYLOAD: Final = {"run": 7, "tool": "search", "text": "x" * 150}


@attrs.define
class Cost:
    """One run: microseconds of CPU for each event, and seconds that each publish took."""

    cpu: float
    took: list[float]

    def at(self, share: float) -> float:
        """A percentile, in milliseconds."""
        return sorted(self.took)[int(share * (len(self.took) - 1))] * 1e3


async def cost(store: str, events: int, publishers: int) -> Cost:
    """Publish so many critical events by so many publishers, each to a user of its own, whose client processes them."""
    took: list[float] = []
    with serving("--store", store, *ROOM) as server:

        async def watch(user: str) -> None:
            async with trio_ws.connect(server.ws, user=user) as client:
                async for _ in client:
                    pass

        async def publish(user: str, count: int) -> None:
            async with httpx.AsyncClient(base_url=server.http, trust_env=False, timeout=60) as client:
                for _ in range(count):
                    began = time.perf_counter()
                    answer = await client.post(
                        f"/v1/users/{user}/events", json={"type": "tool_completed", "payload": PAYLOAD}
                    )
                    took.append(time.perf_counter() - began)
                    answer.raise_for_status()

        users = [f"user{n}" for n in range(publishers)]
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(watch, user)
            for count in (20, events // publishers):  # the first is for warming up
                took.clear()
                before = server.cpu
                async with trio.open_nursery() as publishing:
                    for user in users:
                        publishing.start_soon(publish, user, count)
                await trio.sleep(0.3)  # the last acks
                used = server.cpu - before
            nursery.cancel_scope.cancel()
    return Cost(used / len(took) * 1e6, took)


async def compare(events: int, reps: int) -> None:
    """Print what an event costs over either store, medians of so many runs, one store after the other."""
    for publishers in (1, 16):
        runs: dict[str, list[Cost]] = {"memory": [], "sqlite": []}
        for _ in range(reps):
            for kind, found in runs.items():
                with tempfile.TemporaryDirectory(prefix="trio-ws-") as directory:
                    store = kind if kind == "memory" else f"sqlite:{directory}/it.db"
                    found.append(await cost(store, events, publishers))
        for kind, found in runs.items():
            values = [statistics.median(run.cpu for run in found)]
            values += [statistics.median(run.at(share) for run in found) for share in (0.5, 0.99)]
            print(
                f"{publishers:2} publishers, {kind}: {values[0]:.0f} µs of CPU an event; "
                f"publish p50 {values[1]:.2f} ms, p99 {values[2]:.2f} ms ({reps} runs of {events} events)"
            )


async def fill(path: Path, events: int) -> None:
    """Make a file in which so many critical events are held, unconfirmed, `OF_EACH` of each user."""
    store = SqliteStore(path)
    await store.open()
    payload = b'{"run":7,"text":"' + b"x" * 150 + b'"}'
    batch = Batch()
    for n in range(events // OF_EACH):
        user = f"user{n}"
        batch.users.append(UserRecord(user, f"epoch-{n}", OF_EACH, OF_EACH, 0, None, False, ()))
        for seq in range(1, OF_EACH + 1):
            flags = (False, True, False, False, False)  # merge, tracked, truncated, owned_id, confirmed
            kind = ("tool_completed", 3)
            batch.events.append(
                EventRecord(user, seq, seq, f"{n}-{seq}", *kind, payload, time.time(), None, None, *flags)
            )
        if len(batch.events) >= 20_000 or n + 1 == events // OF_EACH:
            await store.commit(batch)
            batch = Batch()
    await store.close()


async def start(path: Path, user: str) -> tuple[float, float, float, float]:
    """Seconds from the start to the address, to a client's first event, and to its last one; and of CPU until ready."""
    began = time.perf_counter()
    with serving("--store", f"sqlite:{path}", *ROOM) as server:
        ready, used = time.perf_counter() - began, server.cpu
        first = last = 0.0
        async with trio_ws.connect(server.ws, user=user) as client:
            async for event in client:
                last = time.perf_counter() - began
                first = first or last
                if event.seq == OF_EACH:
                    break
    return ready, first, last, used


async def starts(events: int, reps: int) -> None:
    """Print how soon a server is there again that holds so many events. Each start asks for another user."""
    with tempfile.TemporaryDirectory(prefix="trio-ws-") as directory:
        path = Path(directory) / "it.db"
        await fill(path, events)
        size = path.stat().st_size / 1e6
        runs = [await start(path, f"user{n}") for n in range(reps)]
    ready, first, last, used = (statistics.median(column) for column in zip(*runs, strict=True))
    print(
        f"{events} events held ({size:.0f} MB): ready {ready:.2f} s after the start "
        f"({used:.2f} s of CPU); first event to a client {first:.2f} s, its {OF_EACH} all {last:.2f} s ({reps} starts)"
    )


async def measure(events: int, reps: int, held: list[int]) -> None:
    """All of it."""
    await compare(events, reps)
    await empty(reps)
    for count in held:
        await starts(count, reps)


async def empty(reps: int) -> None:
    """Print how soon a server is there that holds nothing, for comparison."""
    runs = []
    for _ in range(reps):
        with tempfile.TemporaryDirectory(prefix="trio-ws-") as directory:
            began = time.perf_counter()
            with serving("--store", f"sqlite:{directory}/it.db", *ROOM) as server:
                runs.append((time.perf_counter() - began, server.cpu))
    ready, used = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"nothing held: ready {ready:.2f} s after the start ({used:.2f} s of CPU; {reps} starts)")
