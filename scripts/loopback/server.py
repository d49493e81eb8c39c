"""A server process of one's own, and a network before it that can be broken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import attrs
import trio

from trio_ws.faults import FaultyNetwork


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads."""
    return time.clock_gettime((~pid << 3) | 2)


@attrs.define(eq=False)
class Server:
    """A process of `trio-ws serve` on free ports.

    Attributes:
      ws, http: the addresses of its WebSocket and of its admin API.
    """

    process: subprocess.Popen[str]
    ws: str
    http: str

    @classmethod
    def start(cls, *options: str) -> Server:
        """Start one with these options; returns once it is ready. No variable of the environment is a setting of it."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "trio_ws", "serve", "--insecure", "--port", "0", "--admin-port", "0"),
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")},
        )
        assert process.stderr is not None
        addresses: list[str] = []
        while len(addresses) < 2:  # beside what is logged
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start; exit status {process.wait()}")
            if line.startswith(("listening on ", "admin on ")):
                addresses.append(line.split()[-1])
        return cls(process, *addresses)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        return cpu_of(self.process.pid)

    def kill(self) -> None:
        """End it at once."""
        assert self.process.stderr is not None
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server with these options while the block runs."""
    server = Server.start(*options)
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def faulty_network(ws: str) -> AsyncIterator[tuple[FaultyNetwork, str]]:
    """A network before the server at `ws` while the block runs, to be broken; and the server's address behind it."""
    server = urlsplit(ws)
    network = FaultyNetwork(server.hostname or "", server.port or 0)
    async with trio.open_nursery() as nursery:
        [(host, port)] = await nursery.start(network.serve, "127.0.0.1")
        yield network, f"ws://{host}:{port}{server.path}"
        nursery.cancel_scope.cancel()
