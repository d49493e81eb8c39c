"""What publishing through `trio_ws.publisher` costs: `scripts/measure publisher`.

One server process, in memory, with one client that processes what comes; the publishers take turns on it, so that all
are measured in one run. CPU is the clock of a process, with all its threads: this one publishes, the other one serves.
An event is a delta of 20 characters, about what a model streams at a time; it counts as published when the server has
answered, and those of a run when the block has ended.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio
from loopback.server import Server, serving

from trio_ws.publisher import AsyncPublisher, Publisher

ROOM: Final = "--store", "memory", "--max-events", "2000000", "--max-bytes", str(1 << 30)
USER: Final = "ada"
TEXT: Final = "twenty characters.. "
EVENT: Final = {"user": USER, "type": "delta", "payload": {"text": TEXT}, "merge": "append"}


def one_by_one(http: str, count: int) -> None:
    """`Publisher.publish`."""
    with Publisher(http) as publisher:
        for _ in range(count):
            publisher.publish(USER, "delta", {"text": TEXT}, merge="append")


def in_batches(http: str, count: int) -> None:
    """`Publisher.publish_many`."""
    with Publisher(http) as publisher:
        publisher.publish_many([EVENT] * count)


def in_a_run(http: str, count: int) -> None:
    """`Run.delta`."""
    with Publisher(http) as publisher, publisher.run(USER) as run:
        for _ in range(count):
            run.delta(TEXT)


async def one_by_one_async(http: str, count: int) -> None:
    """`AsyncPublisher.publish`."""
    async with AsyncPublisher(http) as publisher:
        for _ in range(count):
            await publisher.publish(USER, "delta", {"text": TEXT}, merge="append")


async def in_a_run_async(http: str, count: int) -> None:
    """`AsyncRun.delta`."""
    async with AsyncPublisher(http) as publisher, publisher.run(USER) as run:
        for _ in range(count):
            await run.delta(TEXT)


def under_trio(play: Callable[[str, int], Any], http: str, count: int) -> None:
    """Play in Trio's loop."""
    trio.run(play, http, count)


def under_asyncio(play: Callable[[str, int], Any], http: str, count: int) -> None:
    """Play in asyncio's."""
    asyncio.run(play(http, count))


WAYS: Final[dict[str, tuple[Callable[[str, int], None], int]]] = {
    "Publisher.publish": (one_by_one, 1),
    "AsyncPublisher.publish, Trio": (partial(under_trio, one_by_one_async), 1),
    "AsyncPublisher.publish, asyncio": (partial(under_asyncio, one_by_one_async), 1),
    "Publisher.publish_many": (in_batches, 20),
    "run.delta, threads": (in_a_run, 20),
    "run.delta, Trio": (partial(under_trio, in_a_run_async), 20),
    "run.delta, asyncio": (partial(under_asyncio, in_a_run_async), 20),
}
"""How to publish, and how many times as many events that way takes to be measured."""


def measure(events: int, reps: int) -> None:
    """Publish `events` each way (or times as many, where it is cheap), `reps` times; prints the medians."""
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with (
        tempfile.TemporaryFile() as nothing,
        serving(*ROOM) as server,
    ):
        tail = subprocess.Popen(
            [sys.executable, "-m", "trio_ws", "tail", "--url", server.ws, USER], stdout=nothing
        )
        try:
            in_batches(server.http, 500)  # for warming up
            for _ in range(reps):
                for way, (publish, times) in WAYS.items():
                    found[way].append(_cost(partial(publish, server.http), events * times, server))
        finally:
            tail.terminate()
            tail.wait()
    print(f"{'':32} {'events/s':>10} {'CPU us here':>12} {'in the server':>14}")
    for way, costs in found.items():
        rate, here, there = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"{way:32} {rate:10,.0f} {here:12.1f} {there:14.1f}")


def _cost(publish: Callable[[int], None], count: int, server: Server) -> tuple[float, float, float]:
    """Events a second, and microseconds of CPU for each, here and in the server."""
    began, here, there = time.perf_counter(), time.process_time(), server.cpu
    publish(count)
    took = time.perf_counter() - began
    used = time.process_time() - here
    return count / took, used / count * 1e6, (server.cpu - there) / count * 1e6
