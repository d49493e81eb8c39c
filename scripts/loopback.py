"""What the measuring scripts share: a server process of their own, and a proxy that cuts connections."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


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


class Proxy:
    """Carries one user's connections to the server, and cuts them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server = port
        self._open: list[tuple[trio.SocketStream, trio.SocketStream]] = []
        self._dead: list[tuple[trio.SocketStream, trio.SocketStream]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Carry connections while the block runs; gives the address to connect to."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._carry, 0)
            port = next(x.socket.getsockname()[1] for x in listeners if x.socket.family == socket.AF_INET)
            yield f"ws://127.0.0.1:{port}/ws"
            nursery.cancel_scope.cancel()

    async def _carry(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._server)
        pair = (client, upstream)
        self._open.append(pair)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, upstream, pair, nursery)
                nursery.start_soon(self._copy, upstream, client, pair, nursery)
        finally:
            self._open.remove(pair)
            self._dead = [dead for dead in self._dead if dead is not pair]
            for stream in pair:
                await trio.aclose_forcefully(stream)

    async def _copy(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        pair: tuple[trio.SocketStream, trio.SocketStream],
        nursery: trio.Nursery,
    ) -> None:
        try:
            async for data in source:
                if not any(dead is pair for dead in self._dead):
                    await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()

    def reset(self) -> None:
        """Cut with RST, both ways."""
        for pair in self._open:
            for stream in pair:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.socket.close()

    def half_open(self) -> None:
        """Cut without a word: what is open now stands, and carries nothing any more."""
        self._dead.extend(self._open)
