"""Runs a command as an agent run, and watches it through connections that are cut every few seconds.

    scripts/prove [--every 3] COMMAND [ARGUMENT …]

A server process of its own; `trio-ws run ada -- COMMAND` publishes; two clients follow as ada through a proxy that
resets every connection each few seconds, and now and then stalls one without a word:

  - `trio-ws tail`, the package's own client
  - forty lines over the `websockets` library that speak the protocol by hand, and know nothing of this package

Both must end with every event accounted for, in order, exactly once; and the server with every critical one confirmed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx
import trio
import websockets
from loopback.server import faulty_network, serving
from websockets.trio.client import connect


class ByHand:
    """A client of protocol v1, by hand: it resumes, acks, and checks the accounting rule for itself."""

    def __init__(self) -> None:
        self.session: dict[str, Any] = {}
        self.cursor = 0
        self.events: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.connections = 0

    async def follow(self, url: str) -> None:
        while not (self.events and self.events[-1]["type"] == "agent_completed"):
            try:
                async with connect(
                    url, subprotocols=[websockets.Subprotocol("trio-ws.v1")], open_timeout=4
                ) as ws:
                    self.connections += 1
                    await ws.send(json.dumps({"t": "hello", "user": "ada", **self.session}))
                    while not (self.events and self.events[-1]["type"] == "agent_completed"):
                        with trio.fail_after(4.5):
                            message = json.loads(await ws.recv())
                        for frame in message if isinstance(message, list) else [message]:
                            answer = self.take(frame)
                            if answer is not None:
                                await ws.send(json.dumps(answer))
            except (OSError, websockets.WebSocketException, trio.TooSlowError):
                await trio.sleep(0.1)

    def take(self, frame: dict[str, Any]) -> dict[str, Any] | None:
        kind = frame["t"]
        if kind == "welcome":
            assert frame["resumed"] == bool(self.session), "the log was lost"
            assert frame["seq"] >= self.cursor or not self.session
            self.cursor = frame["seq"]
            self.session = {"session": frame["session"], "epoch": frame["epoch"]}
        elif kind == "event":
            first = frame.get("merged", {}).get("from", frame["seq"])
            if "retry" in frame and frame["seq"] <= self.cursor:
                return {"t": "ack", "seq": self.cursor}
            assert first == self.cursor + 1, f"{first} after {self.cursor}"
            self.cursor = frame["seq"]
            self.events.append(frame)
        elif kind == "gap":
            assert frame["from"] == self.cursor + 1
            self.cursor = frame["to"]
            self.gaps.append(frame)
        elif kind == "ping":
            return {"t": "pong"}
        self.session["seq"] = self.cursor
        return {"t": "ack", "seq": self.cursor} if kind in ("event", "gap") else None


async def prove(command: list[str], every: float, seed: int) -> bool:
    """Run it all; says whether everything was as it should."""
    rng = random.Random(seed)
    by_hand, cuts = ByHand(), Counter[str]()
    tailed: list[dict[str, Any]] = []
    trio_ws = [sys.executable, "-m", "trio_ws"]
    with serving("--store", "memory", "--max-events", "20000") as server:
        async with faulty_network(server.ws) as (network, url), trio.open_nursery() as nursery:
            tail = await trio.lowlevel.open_process(
                [*trio_ws, "tail", "ada", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            followed = trio.Event()

            async def read_tail() -> None:
                buffer = b""
                assert tail.stdout is not None
                async for data in tail.stdout:
                    *lines, buffer = (buffer + data).split(b"\n")
                    tailed.extend(json.loads(line) for line in lines)
                    if tailed and tailed[-1].get("type") == "agent_completed":
                        return

            async def cut() -> None:
                while True:
                    await trio.sleep(every * rng.uniform(0.5, 1.5))
                    how = "half_open" if rng.random() < 0.15 else "cut"
                    cuts[how] += 1
                    getattr(network, how)("")

            async def follow_both() -> None:
                async with trio.open_nursery() as both:
                    both.start_soon(by_hand.follow, url)
                    both.start_soon(read_tail)
                followed.set()

            nursery.start_soon(follow_both)
            nursery.start_soon(cut)
            run = await trio.run_process(
                [*trio_ws, "run", "--url", server.http, "ada", "--", *command], check=False
            )
            with trio.move_on_after(60):
                await followed.wait()
            await trio.sleep(0.5)
            async with httpx.AsyncClient() as client:
                stats = (await client.get(f"{server.http}/v1/stats")).json()
            nursery.cancel_scope.cancel()
        tail.terminate()
        await tail.wait()
    return report(run.returncode, by_hand, tailed, cuts, stats)


def report(
    status: int, by_hand: ByHand, tailed: list[dict[str, Any]], cuts: Counter[str], stats: dict[str, Any]
) -> bool:
    """Print what each client got, and check it."""
    delivery = stats["delivery"]
    events = [line for line in tailed if "type" in line]
    gaps = [line for line in tailed if "gap" in line]
    print(f"\nthe command ended with {status}; cuts: {dict(cuts)}; {by_hand.connections} connections by hand")
    good = True
    for name, seen, lost in (
        ("trio-ws tail", events, gaps),
        ("websockets by hand", by_hand.events, by_hand.gaps),
    ):
        seqs = [event["seq"] for event in seen]
        merged = sum((event.get("merged") or {}).get("n", 0) for event in seen)
        kinds = Counter(event["type"] for event in seen)
        in_order = seqs == sorted(set(seqs))
        whole = bool(seqs) and len(seqs) + merged == seqs[-1] and not lost
        good = good and in_order and whole
        print(f"{name}: {len(seqs)} events, {merged} merged into them, {len(lost)} gaps; {dict(kinds)}")
        print(
            f"  in order, once: {in_order}; every seq from 1 to {seqs[-1] if seqs else 0} accounted for: {whole}"
        )
    same = text_of(events) == text_of(by_hand.events)
    print(f"both read the same {len(text_of(events))} characters of output: {same}")
    lag = delivery["events_held"]
    print(
        f"server: {json.dumps(delivery)}\nserver: held unconfirmed at the end: {lag}; recovery {stats['recovery']}"
    )
    return good and same and lag == 0 and delivery["dead_letters"] == 0


def text_of(events: list[dict[str, Any]]) -> str:
    """The command's output, as the events carried it."""
    return "".join(event["payload"]["text"] for event in events if event["type"] == "tool_output")


def main() -> None:
    """Read the arguments, run, exit with 1 where something was not as it should."""
    parser = argparse.ArgumentParser(
        prog="scripts/prove", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=float, default=3, help="seconds between two cuts, about")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if not chosen.command:
        parser.error("which command?")
    print(f"seed {chosen.seed}", file=sys.stderr)
    sys.exit(0 if trio.run(prove, chosen.command, chosen.every, chosen.seed) else 1)


if __name__ == "__main__":
    main()
