"""What clients in Python see of a server process: how soon they recover from cuts, and are given an event.

Clients are the package's own; they reach the server through `trio_ws.faults`, which cuts them: `cut` sends RST in both
directions, `half_open` lets the connection stand and carries nothing any more. Publishers use HTTP.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

import httpx
import trio
from loopback.server import faulty_network, serving

import trio_ws

from .times import show

ROOM: Final = "--store", "memory", "--max-events", "20000"
STABLE: Final = 5.5
"""Seconds that a connection must last until its next cut is a first one again."""


async def recovery(cuts: int, users: int) -> None:
    """Measure times from a cut to the last missed event processed, and print them."""
    for how in ("cut", "half_open"):
        show(f"recovery, {how}", await _recovery(how, cuts, users))


async def latency(users: int, rate: float, seconds: float) -> None:
    """Measure times from publishing to processing, and print them."""
    processed, confirmed = await _latency(users, rate, seconds)
    show("accepted to processed", processed)
    show("HTTP publish to confirmed answer", confirmed)


class Watcher:
    """One user's client, and what it saw when."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.seen: list[tuple[float, float, int]] = []  # processed at, accepted at, seq
        self.gaps = 0
        self.caught_up = trio.Event()

    def on_state(self, state: object) -> None:
        if getattr(state, "name", "") == "live":
            self.caught_up.set()

    async def watch(self, url: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio_ws.connect(url, user=self.user, on_state=self.on_state) as client:
            task_status.started()
            async for event in client:
                self.seen.append((time.time(), event.ts, event.seq))
                self.gaps = client.statistics().gaps


async def publish(http: str, users: list[str], rate: float, kind: str) -> None:
    """Publish `rate` events a second to each user until cancelled."""
    async with httpx.AsyncClient(base_url=http, timeout=30) as client:
        count = 0
        while True:
            lines = "".join(
                json.dumps({"user": u, "type": kind, "payload": {"n": count}}) + "\n" for u in users
            )
            answer = await client.post("/v1/events", content=lines)
            answer.raise_for_status()
            assert '"error"' not in answer.text, answer.text
            count += 1
            await trio.sleep(1 / rate)


async def _recovery(how: str, cuts: int, users: int) -> list[float]:
    """The times from a cut to the last missed event processed, of `cuts` cuts spread over `users` users."""
    took: list[float] = []
    with serving(*ROOM) as server:
        names = [f"user-{n}" for n in range(users)]
        async with faulty_network(server.ws) as (network, url), trio.open_nursery() as nursery:
            nursery.start_soon(publish, server.http, names, 10, "tool_completed")

            async def one(name: str, times: int) -> None:
                watcher = Watcher(name)
                async with trio.open_nursery() as inner:
                    await inner.start(watcher.watch, f"{url}?link={name}")
                    for _ in range(times):
                        await trio.sleep(STABLE)
                        watcher.caught_up = trio.Event()
                        cut_at = time.time()
                        getattr(network, how)(name)
                        with trio.fail_after(30):
                            await watcher.caught_up.wait()
                        live_at = time.time()
                        await trio.sleep(0.5)
                        missed = [at for at, ts, _ in watcher.seen if cut_at <= ts <= live_at]
                        took.append(max(missed) - cut_at)
                        if sys.stderr.isatty():
                            print(f"\r{how}: {len(took)}/{cuts}", end="", file=sys.stderr)
                    seqs = [seq for _, _, seq in watcher.seen]
                    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "an event was lost or doubled"
                    assert watcher.gaps == 0
                    inner.cancel_scope.cancel()

            async with trio.open_nursery() as workers:
                for n, name in enumerate(names):
                    workers.start_soon(one, name, cuts // users + (n < cuts % users))
            nursery.cancel_scope.cancel()
    print(file=sys.stderr)
    return took


async def _latency(users: int, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Times from acceptance to processing in the client, and of the whole publish over HTTP with `?wait=confirmed`."""
    names = [f"user-{n}" for n in range(users)]
    watchers = [Watcher(name) for name in names]
    rounds: list[float] = []
    with serving(*ROOM) as server:
        async with (
            httpx.AsyncClient(base_url=server.http, timeout=30) as client,
            trio.open_nursery() as nursery,
        ):
            for watcher in watchers:
                await nursery.start(watcher.watch, server.ws)
            for watcher in watchers:
                await watcher.caught_up.wait()

            async def post(user: str) -> None:
                for _ in range(int(rate * seconds)):
                    began = time.perf_counter()
                    answer = await client.post(
                        f"/v1/users/{user}/events?wait=confirmed",
                        json={"type": "tool_executing", "payload": {"n": 1}},
                    )
                    answer.raise_for_status()
                    rounds.append(time.perf_counter() - began)
                    await trio.sleep(1 / rate)

            async with trio.open_nursery() as posting:
                for name in names:
                    posting.start_soon(post, name)
                    await trio.sleep(1 / rate / users)
            nursery.cancel_scope.cancel()
    return [at - ts for watcher in watchers for at, ts, _ in watcher.seen], rounds
