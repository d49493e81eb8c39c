"""Measures a real server process on the loopback: recovery from cuts, latency, and how large the rooms are.

    scripts/measure recovery [--cuts 200] [--users 20]   cut to last missed event processed: reset, half-open
    scripts/measure latency [--users 5] [--rate 5] [--seconds 20]   publish to processed
    scripts/measure memory                                resident memory of a held event, and of a user
    scripts/measure dashboard                             weight of the page; opening it to the first figures
    scripts/measure browser [--cuts 100] [--tabs 10] [--events 20000]   client.js in Chromium
    scripts/measure durability [--events 3000] [--reps 3] [--held 100000 1000000]   its cost, and the time of a start
    scripts/measure publisher [--events 500] [--reps 3]   trio_ws.publisher: events a second, CPU on both sides
    scripts/measure redis [--calls 10000] [--reps 3] [--restarts 200]   CPU of a call; cancellation, restarts
    scripts/measure redis-kills [--kills 100] [--failovers 0] [--seed 1]   is all there that was committed?
    scripts/measure redis-store [--seconds 3]             commits to Redis: events a second, CPU on both sides; memory
    scripts/measure cluster [--events 200] [--flood 3000] [--kills 12]   ways over nodes: latency, CPU; an owner's death
    scripts/measure rooms                                 lines of code in each folder of the package

Clients are the package's own; they reach the server through `trio_ws.faults`, which cuts them: `cut` sends RST in both
directions, `half_open` lets the connection stand and carries nothing any more. Publishers use HTTP.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path

import httpx
import trio
from loopback.server import faulty_network, server

import trio_ws
from measuring import durability, publisher

ROOT = Path(__file__).resolve().parents[2]
STABLE = 5.5  # seconds that a connection must last until its next cut is a first one again


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


async def measure_recovery(how: str, cuts: int, users: int) -> list[float]:
    """The times from a cut to the last missed event processed, of `cuts` cuts spread over `users` users."""
    took: list[float] = []
    with server() as (ws, http):
        names = [f"user-{n}" for n in range(users)]
        async with faulty_network(ws) as (network, url), trio.open_nursery() as nursery:
            nursery.start_soon(publish, http, names, 10, "tool_completed")

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


async def measure_latency(users: int, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Times from acceptance to processing in the client, and of the whole publish over HTTP with `?wait=confirmed`."""
    names = [f"user-{n}" for n in range(users)]
    watchers = [Watcher(name) for name in names]
    rounds: list[float] = []
    with server() as (ws, http):
        async with httpx.AsyncClient(base_url=http, timeout=30) as client, trio.open_nursery() as nursery:
            for watcher in watchers:
                await nursery.start(watcher.watch, ws)
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


def show(name: str, values: list[float]) -> None:
    """One line: how many, and percentiles in milliseconds."""
    ordered = sorted(values)
    at = {
        share: ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * 1e3
        for share in (0.95, 0.99)
    }
    print(
        f"{name}: n={len(values)} median={statistics.median(ordered) * 1e3:.1f} ms "
        f"p95={at[0.95]:.1f} ms p99={at[0.99]:.1f} ms max={ordered[-1] * 1e3:.1f} ms"
    )


async def measure_memory(count: int = 100_000) -> None:
    """How much the process grows with each event that is held, by the payload's size, and with each user."""
    huge = 2**40
    config = trio_ws.Config(
        max_events=huge, max_events_per_user=huge, max_bytes=huge, max_bytes_per_user=huge
    )
    async with trio_ws.open_hub(config) as hub:

        def grown(name: str, users: int, size: int) -> float:
            for _ in range(1000):  # what is made once, is made
                hub.publish_nowait(f"{name} warm", "token", {"text": "x" * size})
            before = _resident()
            for n in range(count):
                hub.publish_nowait(f"{name} {n % users}", "token", {"text": "x" * size})
            return (_resident() - before) / count

        for size in (10, 300, 1000):
            print(f"{f'a payload of {size} bytes, held':40} {grown(str(size), 100, size):6.0f} bytes")
        print(f"{'a user with one such, of 10 bytes':40} {grown('user', count, 10):6.0f} bytes")


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_dashboard(loads: int = 10) -> None:
    """What the dashboard weighs, and how long Chromium takes to the first figures, each time with an empty cache."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("this needs Chromium and Playwright: pip install 'trio-ws[test]'") from None
    from trio_ws.admin.pages import DASHBOARD

    shown = """new Promise((done) => {
      const look = () => /\\d/.test(document.querySelector(".tile .figure")?.textContent ?? "")
        ? done(performance.now()) : setTimeout(look, 1);
      look();
    })"""
    with server() as (_, http), sync_playwright() as playwright:
        for name, coding in (("raw", "identity"), ("compressed", "gzip")):
            with httpx.Client(base_url=http, headers={"accept-encoding": coding}) as client:
                sizes = []
                for path in DASHBOARD:
                    with client.stream("GET", path) as answer:
                        sizes.append(sum(map(len, answer.iter_raw())))
            print(f"{'weight, ' + name:40} {sum(sizes) / 1024:6.1f} KiB in {len(sizes)} files")
        chromium = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        )
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        times = []
        for _ in range(loads):
            page = browser.new_context().new_page()
            page.goto(http, wait_until="commit")
            times.append(page.evaluate(shown) / 1000)
            page.context.close()
        browser.close()
    show("opening to first figures", times)


def rooms() -> None:
    """Lines of Python (and of what is served to browsers) in each folder of the package."""
    total: dict[str, tuple[int, int]] = {}
    for path in sorted((ROOT / "trio_ws").rglob("*")):
        if path.suffix in (".py", ".js", ".html", ".css", ".ts") and "vendor" not in path.parts:
            room = path.parent.relative_to(ROOT).as_posix() + (
                "/" if path.suffix == ".py" else f" *{path.suffix}"
            )
            files, lines = total.get(room, (0, 0))
            total[room] = files + 1, lines + len(path.read_text().splitlines())
    for room, (files, lines) in total.items():
        print(f"{room:32} {files:3} files {lines:6} lines")
    print(
        f"{'in all':32} {sum(f for f, _ in total.values()):3} files {sum(n for _, n in total.values()):6} lines"
    )


def in_browser(cuts: int, tabs: int, events: int) -> None:
    """The figures of client.js."""
    from measuring import browser

    print(browser.size())
    for name, rate in browser.intake(events).items():
        print(f"taken and acked by a page, {name}: {rate:,.0f} events a second")
    for fault in ("cut", "half_open"):
        show(f"recovery in Chromium, {fault}", browser.recovery(fault, cuts, tabs))


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        prog="scripts/measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recovery = commands.add_parser("recovery")
    recovery.add_argument("--cuts", type=int, default=200)
    recovery.add_argument("--users", type=int, default=20)
    latency = commands.add_parser("latency")
    latency.add_argument("--users", type=int, default=5)
    latency.add_argument("--rate", type=float, default=5)
    latency.add_argument("--seconds", type=float, default=20)
    commands.add_parser("memory")
    commands.add_parser("dashboard")
    paged = commands.add_parser("browser")
    paged.add_argument("--cuts", type=int, default=100)
    paged.add_argument("--tabs", type=int, default=10)
    paged.add_argument("--events", type=int, default=20000)
    durable = commands.add_parser("durability")
    durable.add_argument("--events", type=int, default=3000)
    durable.add_argument("--reps", type=int, default=3)
    durable.add_argument("--held", type=int, nargs="*", default=[100_000, 1_000_000])
    published = commands.add_parser("publisher")
    published.add_argument("--events", type=int, default=500)
    published.add_argument("--reps", type=int, default=3)
    redis = commands.add_parser("redis")
    redis.add_argument("--calls", type=int, default=10_000)
    redis.add_argument("--reps", type=int, default=3)
    redis.add_argument("--restarts", type=int, default=200)
    kills = commands.add_parser("redis-kills")
    kills.add_argument("--kills", type=int, default=100)
    kills.add_argument(
        "--failovers", type=int, default=0, help="instead of kills: of a primary under sentinels"
    )
    kills.add_argument("--seed", type=int, default=1)
    in_redis = commands.add_parser("redis-store")
    in_redis.add_argument("--seconds", type=float, default=3.0)
    nodes = commands.add_parser("cluster")
    nodes.add_argument("--events", type=int, default=200)
    nodes.add_argument("--flood", type=int, default=3000)
    nodes.add_argument("--kills", type=int, default=12)
    commands.add_parser("rooms")
    chosen = parser.parse_args()
    if chosen.command == "recovery":
        for how in ("cut", "half_open"):
            show(f"recovery, {how}", trio.run(measure_recovery, how, chosen.cuts, chosen.users))
    elif chosen.command == "latency":
        processed, confirmed = trio.run(measure_latency, chosen.users, chosen.rate, chosen.seconds)
        show("accepted to processed", processed)
        show("HTTP publish to confirmed answer", confirmed)
    elif chosen.command == "memory":
        trio.run(measure_memory)
    elif chosen.command == "dashboard":
        measure_dashboard()
    elif chosen.command == "browser":
        in_browser(chosen.cuts, chosen.tabs, chosen.events)
    elif chosen.command == "durability":
        trio.run(durability.measure, chosen.events, chosen.reps, chosen.held)
    elif chosen.command == "publisher":
        publisher.measure(chosen.events, chosen.reps)
    elif chosen.command == "redis":
        from measuring import redis_link

        trio.run(redis_link.measure, chosen.calls, chosen.reps, chosen.restarts)
    elif chosen.command == "redis-kills":
        from measuring import redis_kills

        trio.run(redis_kills.run, chosen.kills, chosen.failovers, chosen.seed)
    elif chosen.command == "redis-store":
        from measuring import redis_store

        trio.run(redis_store.measure, chosen.seconds)
    elif chosen.command == "cluster":
        from measuring import cluster

        trio.run(cluster.measure, chosen.events, chosen.flood, chosen.kills)
    else:
        rooms()


if __name__ == "__main__":
    main()
