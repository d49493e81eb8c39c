"""The server's lives, one after the other, over one store and on the same two ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

NEST = (sys.executable, "-m", "ordeal.nest")
PATIENCE = 60.0
"""Seconds in which a server that was started must be ready, and one that was told to end must have ended."""


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Lives:
    """Starts and ends a server. `born` makes it.

    Attributes:
      host, port, admin_port: where each life listens.
      pid: of the life that there is; None between two.
    """

    def __init__(
        self, host: str, ports: tuple[int, int], notices: trio.socket.SocketType, nest: trio.Process
    ) -> None:
        self.host = host
        self.port, self.admin_port = ports
        self.pid: int | None = None
        self._notices = notices
        self._nest = nest
        self._told = b""

    @property
    def http(self) -> str:
        """The address of the admin API."""
        return f"http://{self.host}:{self.admin_port}"

    async def start(self) -> None:
        """Begin a life; it is not ready yet."""
        self._forget_notices()
        assert self._nest.stdin is not None
        await self._nest.stdin.send_all(b"start\n")
        self.pid = int((await self._line()).removeprefix("started "))

    async def wait_ready(self) -> None:
        """Wait until it serves, as its service manager would.

        Raises:
          trio.TooSlowError: it doesn't.
        """
        with trio.fail_after(PATIENCE):
            while b"READY=1" not in await self._notices.recv(4096):
                pass

    async def ready_or_ended(self) -> int | None:
        """Wait until it is ready; returns None then, and its status where it ends by itself before."""
        ended: int | None = None

        async def watch() -> None:
            nonlocal ended
            ended = await self.wait_ended()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.wait_ready()
            nursery.cancel_scope.cancel()
        return ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the life that there is."""
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it has ended by itself, which its status tells

    async def wait_ended(self) -> int:
        """Wait for the end of this life; returns its status, below zero where it was a signal."""
        with trio.fail_after(PATIENCE):
            status = int((await self._line()).removeprefix("ended "))
        self.pid = None
        return status

    async def _line(self) -> str:
        assert self._nest.stdout is not None
        while b"\n" not in self._told:
            piece = await self._nest.stdout.receive_some()
            if not piece:
                raise RuntimeError("the nest is gone")
            self._told += piece
        line, _, self._told = self._told.partition(b"\n")
        return line.decode()

    def _forget_notices(self) -> None:
        """What earlier lives have told is no news of the next."""
        while True:
            try:
                os.read(self._notices.fileno(), 4096)
            except BlockingIOError:
                return


@asynccontextmanager
async def born(
    store: str,
    log: Path,
    options: Sequence[str],
    *,
    host: str = "127.0.0.1",
    nest: Sequence[str] = NEST,
) -> AsyncIterator[Lives]:
    """Lives of a server over `store`, on `host`, with these further options; what they log goes to `log`.

    Leaving the block kills the one that there is.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}
    ports = free_port(), free_port()
    arguments = [
        *("--insecure", "--insecure", "--store", store, "--host", host, "--port", str(ports[0])),
        *("--admin-host", host, "--admin-port", str(ports[1])),
        *options,
    ]
    # A path, not a name without one: those belong to a network namespace, and a server may have one of its own.
    with (
        tempfile.TemporaryDirectory(prefix="ordeal-") as place,
        trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        notified = f"{place}/notices"
        await notices.bind(notified)
        process = await trio.lowlevel.open_process(
            [*nest, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us alone
            env=environment | {"NOTIFY_SOCKET": notified},
        )
        lives = Lives(host, ports, notices, process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, process.stderr, log)
            try:
                yield lives
            finally:
                assert process.stdin is not None
                with trio.move_on_after(10, shield=True):
                    await process.stdin.aclose()
                    await process.wait()


async def _keep(errors: trio.abc.ReceiveStream | None, log: Path) -> None:
    """Write down what the lives log. It comes through a pipe: a file would count as theirs where they may grow none."""
    assert errors is not None
    with log.open("ab", buffering=0) as file:
        async for piece in errors:
            file.write(piece)
