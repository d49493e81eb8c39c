"""What client.js does in Chromium, measured: recovery from cuts, how many events a page takes and acks, its size.

The server is a `trio-ws demo` process: its page's network can be broken on purpose. Publishing goes on meanwhile. Needs
Chromium, and Playwright (the extra `test`).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from .times import show

STATIC = Path(__file__).resolve().parents[2] / "trio_ws" / "admin" / "static"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
STABLE = 5.5  # seconds that a connection must last until its next cut is a first one again
RATE = 10  # events a second for each tab
SETTINGS = {"MAX_EVENTS": "100000", "MAX_EVENTS_PER_USER": "50000", "MAX_BYTES_PER_USER": str(64 * 2**20)}
WATCH = """async ({url, user}) => {
  const { connect } = await import("/client.js");
  window.seen = []; window.live = [];
  window.c = connect(url, { user, key: user });
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  c.on("*", (e) => void seen.push([e.seq, e.ts, now()]));
  c.on("state", (s) => s.state === "live" && live.push(now()));
}"""
TAKE = """async ({url, user, count, promise}) => {
  const { connect } = await import("/client.js");
  let n = 0, first;
  const c = connect(url, { user, key: null });
  const handle = () => { first ??= performance.now(); n++; };
  c.on("*", promise ? async () => handle() : handle);
  while (c.figures.acked < count) await new Promise((done) => setTimeout(done, 1));
  const took = (performance.now() - first) / 1000;
  const { violations, connections, handled } = c.figures;
  c.close();
  return { took, handled: Math.min(n, handled), violations, connections };
}"""


@contextmanager
def demo() -> Iterator[tuple[str, str, str]]:
    """A demo server; gives its WebSocket's address, the same over the network that breaks, and the admin API's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_ws", "demo", "--port", "0", "--admin-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **{f"TRIO_WS_{name}": value for name, value in SETTINGS.items()}},
    )
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"demo page on (\S+)/demo", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {said}")
            said += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        about = httpx.get(f"{found[1]}/demo/about").json()
        ws = "ws://127.0.0.1:{}/ws"
        yield ws.format(about["port"]), ws.format(about["faulty_port"]), found[1]
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("there is no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def publish(admin: str, users: list[str], stop: threading.Event) -> None:
    """`RATE` critical events a second to each user, until told to stop."""
    with httpx.Client(base_url=admin, timeout=30) as client:
        while not stop.wait(1 / RATE):
            lines = (json.dumps({"user": user, "type": "tool_completed", "payload": {}}) for user in users)
            client.post("/v1/events", content="\n".join(lines)).raise_for_status()


def recovery(fault: str, cuts: int, tabs: int) -> list[float]:
    """Seconds from each of `cuts` cuts, spread over `tabs` tabs, to the last missed event processed."""
    took: list[float] = []
    with demo() as (_, faulty, admin), chromium() as browser, httpx.Client(base_url=admin) as client:
        users = [f"tab-{n}" for n in range(tabs)]
        pages = {user: browser.new_page() for user in users}
        for user, page in pages.items():
            page.goto(f"{admin}/healthz")
            page.evaluate(WATCH, {"url": f"{faulty}?link={user}", "user": user})
        stop = threading.Event()
        publisher = threading.Thread(target=publish, args=(admin, users, stop))
        publisher.start()
        try:
            for _ in range(-(-cuts // tabs)):
                time.sleep(STABLE)
                cut_at = {}
                for user in users:
                    cut_at[user] = time.time()
                    body = {"link": user, "fault": fault}
                    client.post("/demo/network", json=body).raise_for_status()
                for user, page in pages.items():
                    wait = f"""new Promise((done) => {{
                      const look = () => live.at(-1) > {cut_at[user]} ? done(live.at(-1)) : setTimeout(look, 20);
                      look();
                    }})"""
                    live_at = page.evaluate(wait)
                    time.sleep(0.05)
                    missed = [
                        at for _, ts, at in page.evaluate("seen.slice(-300)") if cut_at[user] <= ts <= live_at
                    ]
                    took.append(max(missed, default=live_at) - cut_at[user])
        finally:
            stop.set()
            publisher.join()
        for page in pages.values():
            seqs = page.evaluate("seen.map(([seq]) => seq)")
            assert seqs == list(range(1, len(seqs) + 1)), "an event was lost or doubled"
            assert page.evaluate("[c.figures.gaps, c.figures.violations]") == [0, 0]
    return took


def intake(count: int) -> dict[str, float]:
    """Events a second that a page takes and acks, of a backlog of `count`, by what they and their handler are."""
    figures = {}
    with demo() as (ws, _, admin), chromium() as browser, httpx.Client(base_url=admin, timeout=60) as client:
        page = browser.new_page()
        page.goto(f"{admin}/healthz")
        for type in ("note", "tool_completed"):
            for promise in (False, True):
                user = f"{type}-{promise}"
                for start in range(0, count, 500):
                    lines = (
                        json.dumps(
                            {"user": user, "type": type, "payload": {"run": 7, "n": n, "text": "x" * 40}}
                        )
                        for n in range(start, start + 500)
                    )
                    client.post("/v1/events", content="\n".join(lines)).raise_for_status()
                answer = page.evaluate(TAKE, {"url": ws, "user": user, "count": count, "promise": promise})
                assert answer["handled"] == count, answer
                assert answer["violations"] == 0, answer
                name = (
                    f"{'critical' if type != 'note' else 'normal'}, {'async' if promise else 'plain'} handler"
                )
                figures[name] = count / answer["took"]
    return figures


def size() -> str:
    """What the client's modules weigh as they are served, and compressed."""
    sources = {name: (STATIC / name).read_bytes() for name in ("client.js", "runs.js")}
    return "\n".join(
        f"{name}: {len(source)} bytes, {len(gzip.compress(source))} compressed with gzip"
        for name, source in sources.items()
    )


def measure(cuts: int, tabs: int, events: int) -> None:
    """Measure all of it, and print."""
    print(size())
    for name, rate in intake(events).items():
        print(f"taken and acked by a page, {name}: {rate:,.0f} events a second")
    for fault in ("cut", "half_open"):
        show(f"recovery in Chromium, {fault}", recovery(fault, cuts, tabs))
