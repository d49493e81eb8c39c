"""What the measuring scripts share: a server process of their own, and a network before it that can be broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import trio

from trio_ws.faults import FaultyNetwork


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """A server process of our own; gives its WebSocket and its admin address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trio_ws", "serve", "--insecure", "--port", "0", "--admin-port", "0"),
            *("--store", "memory", "--max-events", "20000"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        found: dict[str, str] = {}
        while len(found) < 2:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start; exit status {process.wait()}")
            for kind, start in (("ws", "listening on "), ("http", "admin on ")):
                if line.startswith(start):
                    found[kind] = line.removeprefix(start).strip()
        yield found["ws"], found["http"]
    finally:
        process.terminate()
        process.wait(20)


@asynccontextmanager
async def faulty_network(ws: str) -> AsyncIterator[tuple[FaultyNetwork, str]]:
    """A network before the server at `ws` while the block runs, to be broken; and the server's address behind it."""
    server = urlsplit(ws)
    network = FaultyNetwork(server.hostname or "", server.port or 0)
    async with trio.open_nursery() as nursery:
        [(host, port)] = await nursery.start(network.serve, "127.0.0.1")
        yield network, f"ws://{host}:{port}{server.path}"
        nursery.cancel_scope.cancel()
