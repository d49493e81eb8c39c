"""A real server in a process of its own, under load, to be attacked: what runs in it, and what the tests see of it.

`python -m tests.integration.victim FLAGS-AS-JSON` is ``trio-ws serve`` with those settings, and some things more: it
publishes to five users all the time, answers at ``/inside`` how many tasks and descriptors it has and how much memory,
and at ``/turns`` how busy its loop was.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import trio_ws
from trio_ws.cli.serve import Extension, run_server
from trio_ws.errors import OwnedElsewhere
from trio_ws.log import configure
from trio_ws.settings import load

from ..server.raw import Peer
from ..server.tokens import SECRET, token

ROOT = Path(__file__).resolve().parents[2]
BUSY = [f"busy{n}" for n in range(5)]
ORIGIN = "https://app.example.com"
FLAGS: dict[str, Any] = {
    "store": "memory",
    "port": 0,
    "admin_port": 0,
    "jwt_secret": SECRET,
    "jwt_leeway": 0,
    "jwt_audience": "us",
    "allowed_origins": [ORIGIN],
    "hello_timeout": 1.5,
    "write_timeout": 1,
    "connect_rate": 100_000,
    "connect_burst": 100_000,
    "drain_timeout": 0.5,
}


def inside() -> dict[str, int]:
    """Tasks, descriptors and resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "fds": len(os.listdir("/proc/self/fd")),
        "rss": pages * resource.getpagesize(),
    }


class Turns(trio.abc.Instrument):
    """What the turns of the loop take of the processor. A machine that has other things to do does not change that."""

    def __init__(self) -> None:
        self._begun = self._since = 0.0
        self._took: list[float] = []

    def after_io_wait(self, timeout: float) -> None:
        self._since = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        self._took.append(time.thread_time() - self._since)

    def read(self) -> dict[str, float]:
        """Since it was last asked: how much of the time it was busy, and how long one in a hundred of those who come at
        any time has to wait until it is free."""
        took, self._took = self._took, []
        begun, self._begun = self._begun, time.perf_counter()
        seconds = self._begun - begun
        shortest, longest = 0.0, max(took, default=0.0)
        while longest - shortest > 1e-6:
            wait = (shortest + longest) / 2
            late = sum(
                turn - wait for turn in took if turn > wait
            )  # who comes in the first part of a long turn
            shortest, longest = (wait, longest) if late > seconds / 100 else (shortest, wait)
        return {"busy": sum(took) / seconds, "wait": longest}


async def _extend(hub: trio_ws.Hub, nursery: trio.Nursery, address: Any) -> Extension:
    async def tell(request: Request) -> JSONResponse:
        return JSONResponse(inside())

    turns = Turns()
    trio.lowlevel.add_instrument(turns)

    async def tell_turns(request: Request) -> JSONResponse:
        return JSONResponse(turns.read())

    async def publish() -> None:
        while True:
            for user in BUSY:
                with suppress(
                    trio.WouldBlock, OwnedElsewhere
                ):  # of several nodes, each does that for whom it has
                    hub.publish_nowait(user, "token", {"text": "some words"})
            await trio.sleep(0.02)

    return Extension(calls=[Route("/inside", tell), Route("/turns", tell_turns)], work=publish)


@attrs.define
class Victim:
    """The server, from outside."""

    process: subprocess.Popen[bytes]
    port: int
    admin: str
    log: Path
    http: httpx.AsyncClient

    async def dial(self, *, source: str | None = None, **options: Any) -> trio.SocketStream:
        """A connection, from an address of this machine's own choice or from `source`."""
        connecting = trio.socket.socket()
        try:
            for option, value in options.items():
                connecting.setsockopt(trio.socket.SOL_SOCKET, getattr(trio.socket, option), value)
            if source is not None:
                await connecting.bind((source, 0))
            await connecting.connect(("127.0.0.1", self.port))
            return trio.SocketStream(connecting)
        except BaseException:
            connecting.close()
            raise

    @asynccontextmanager
    async def silent(self, count: int) -> AsyncIterator[list[trio.SocketStream]]:
        """So many connections that say nothing, closed at the end of the block whatever happens in it."""
        opened: list[trio.SocketStream] = []
        try:
            while len(opened) < count:
                opened.append(await self.dial())
            yield opened
        finally:
            for stream in opened:
                stream.socket.close()

    async def lets_in(self, *sent: bytes) -> bool:
        """Whether a client that says hello so gets its welcome."""
        try:
            async with self.peer(*sent) as peer:
                return b" 101 " in await peer.head() and "welcome" in await peer.text()
        except (OSError, trio.BrokenResourceError, AssertionError):
            return False

    @asynccontextmanager
    async def peer(self, *sent: bytes, **options: Any) -> AsyncIterator[Peer]:
        """A raw connection, closed at the end of the block."""
        async with await self.dial(**options) as stream:
            peer = Peer(stream)
            if sent:
                await peer.send(*sent)
            yield peer

    async def inside(self) -> dict[str, int]:
        return dict((await self.http.get("/inside")).json())

    async def turns(self) -> dict[str, float]:
        return dict((await self.http.get("/turns")).json())

    async def stats(self) -> dict[str, Any]:
        return dict((await self.http.get("/v1/stats")).json())

    async def refused(self) -> dict[str, int]:
        return dict((await self.stats())["connections"]["refused"])

    def client(self, user: str, **claims: Any) -> Any:
        return trio_ws.connect(
            f"ws://127.0.0.1:{self.port}/ws", token=token(sub=user, aud="us", **{"exp": 4e9, **claims})
        )


@asynccontextmanager
async def attacked(
    directory: Path, *, limits: dict[int, int] | None = None, **flags: Any
) -> AsyncIterator[Victim]:
    """Run a server while the block does; that it drains and exits with 0 in the end is a part of the test.

    Args:
      limits: of resources (``resource.RLIMIT_…``), for the process.
    """
    log = directory / "log"
    number = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def limit() -> None:
        for kind, value in (limits or {}).items():
            resource.setrlimit(kind, (value, max(value, number) if kind == resource.RLIMIT_NOFILE else value))

    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - it waits for nothing
            [sys.executable, "-m", "tests.integration.victim", json.dumps(FLAGS | flags)],
            cwd=ROOT,
            stderr=out,
            preexec_fn=limit,
        )
    try:
        with trio.fail_after(120):
            while "admin on " not in log.read_text():
                if process.poll() is not None:
                    raise AssertionError(log.read_text())
                await trio.sleep(0.05)
        lines = log.read_text().splitlines()
        ws = next(line for line in lines if line.startswith("listening on"))
        admin = next(line.split()[2] for line in lines if line.startswith("admin on"))
        port = int(ws.rsplit(":", 1)[1].partition("/")[0])
        # A connection for each call: one that was idle may be closed just when it is used again.
        each = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=admin, trust_env=False, timeout=10, limits=each) as http:
            yield Victim(process, port, admin, log, http)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(15):
            assert await trio.to_thread.run_sync(partial(process.wait, 12)) == 0
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


if __name__ == "__main__":
    configure("console")
    sys.exit(trio.run(partial(run_server, load(json.loads(sys.argv[1]), {}).settings, extend=_extend)))
