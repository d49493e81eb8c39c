"""What runs of agents cost, in this process, by processor time: `scripts/bench runs`.

`delta` is the whole way of one delta to one client that acks each batch: published bare, and in a run by
`RunHandle.delta`, in turns. A late tab comes to a run of 10,000 deltas, all of which are still held, with a note after
each ten, so that not all of them are joined into one event: once without folding (`from: "retained"`), once with
(`from: "snapshot"`). Its bytes are those of the frames, its time is that of the server to hand them over and that of a
client to read and fold them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

import trio

from trio_ws.core import wire
from trio_ws.core.closing import CloseCode
from trio_ws.core.pool import Ask
from trio_ws.core.run_view import RunView
from trio_ws.hub import Attachment, Hub, Identity

from .inprocess import Client, hub_of, taken

DELTAS = 10_000
ROUND = 2_000
"""Deltas between two turns."""

BATCH = 50
"""Deltas after which the client takes and acks what there is."""

TEXT = "a word or two "


class Tab:
    """A connection's way out that keeps what it is handed."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frames: list[bytes]) -> bool:
        self.frames += frames
        return True

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        pass

    def expect_by(self, deadline: float) -> None:
        pass

    def authenticate(self, token: str) -> None:
        pass


async def _round(client: Client, publish: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one delta, of a round of them."""
    begun = time.process_time()
    for _ in range(ROUND // BATCH):
        for _ in range(BATCH):
            await publish()
        await taken(client)
        client.ack()
    return (time.process_time() - begun) / ROUND * 1e6


async def deltas(reps: int) -> None:
    """A delta bare and in a run, in turns; the order changes each time."""
    async with hub_of(max_events_per_user=200, max_events=10_000) as hub:
        run = await hub.open_run("ada", "r")
        clients = {"bare": Client(hub, "bob"), "run": Client(hub, "ada")}
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "bare": lambda: hub.publish("bob", "agent_delta", {"text": TEXT}, key="r", merge="append"),
            "run": lambda: run.delta(TEXT),
        }
        costs: dict[str, list[float]] = {"bare": [], "run": []}
        for turn in range(8 * reps):
            for way in ("bare", "run") if turn % 2 else ("run", "bare"):
                cost = await _round(clients[way], ways[way])
                if turn > 1:
                    costs[way].append(cost)
        await run.close()
    bare, in_run = statistics.median(costs["bare"]), statistics.median(costs["run"])
    more = statistics.median(b / a for a, b in zip(costs["bare"], costs["run"], strict=True))
    print(f"a delta: bare {bare:.2f} us, in a run {in_run:.2f} us: {100 * (more - 1):+.0f} %")


async def late_tabs(reps: int) -> None:
    """A late tab, with and without folding."""
    async with hub_of() as hub:
        first = Client(hub, "ada")
        run = await hub.open_run("ada", "r")
        for at in range(DELTAS):
            run.delta_nowait(TEXT)
            if at % 10 == 9:
                hub.publish_nowait("ada", "note", {"n": at})
            if at % 100 == 0:
                await taken(first)
                first.ack()
        await taken(first)
        first.ack()
        whole = run.view().text
        for start in ("retained", "snapshot") * reps:
            await _late_tab(hub, start, whole)
        await run.close()


async def _late_tab(hub: Hub, start: str, whole: str) -> None:
    tab = Tab()
    begun = time.process_time()
    attached = hub.attach(Identity("ada"), Ask(start=start), tab)
    assert isinstance(attached, Attachment)
    while attached.session.pending:
        await trio.lowlevel.checkpoint()
    taken_in = time.process_time() - begun
    begun = time.process_time()
    view = RunView("r")
    for data in tab.frames:
        for frame in wire.decode_server(data):
            if isinstance(frame, wire.EventFrame):
                view.fold(frame.type, frame.payload, frame.seq, frame.ts)
    read_in = time.process_time() - begun
    size = sum(map(len, tab.frames))
    if start == "retained":
        assert view.text == whole
    print(
        f"a late tab, from {start!r}: {len(tab.frames)} frames, {size} bytes, "
        f"{taken_in * 1e3:.2f} ms for the server, {read_in * 1e3:.2f} ms to read and fold"
    )
    attached.detach()


def run(reps: int) -> int:
    """Measure, and print."""
    trio.run(deltas, reps)
    trio.run(late_tabs, reps)
    return 0
