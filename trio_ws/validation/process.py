"""A server as a process of its own: started, its addresses read, its CPU and memory watched, ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 15.0
KEPT_LINES: Final = 20

_ADDRESS: Final = re.compile(r"^(listening|admin) on (?:ws|http)://([^/\s]+):(\d+)", re.MULTILINE)


class ServerFailed(Exception):
    """A server did not start, or ended by itself; the message holds its last words."""


class Process:
    """A running server.

    Attributes:
      ws, http: host and port for WebSockets, and for the API.
    """

    def __init__(self, process: trio.Process, said: deque[str], found: dict[str, tuple[str, int]]) -> None:
        self.ws, self.http = found["listening"], found["admin"]
        self._process = process
        self._said = said

    @property
    def cpu(self) -> float | None:
        """Seconds of CPU that it has used; None where the system has no such clock for another process."""
        if sys.platform != "linux":
            return None
        try:
            return time.clock_gettime((~self._process.pid << 3) | 2)  # see clock_getcpuclockid(3)
        except OSError:
            return None

    @property
    def memory(self) -> int | None:
        """Bytes of memory that it holds; None where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGESIZE")

    async def wait_ended(self) -> None:
        """Raises `ServerFailed` when it ends by itself. A checkpoint; cancelling it changes nothing."""
        status = await self._process.wait()
        raise ServerFailed(f"a server ended by itself, with status {status}: {' / '.join(self._said)}")


@asynccontextmanager
async def running(module: str, arguments: Sequence[str]) -> AsyncIterator[Process]:
    """``python -m module arguments`` while the block runs, in an empty directory, deaf to this terminal's Ctrl-C and to
    the variables that configure a server.

    Raises:
      ServerFailed: it did not start, or ended while the block ran.
    """
    with tempfile.TemporaryDirectory(prefix="trio-ws-validate-") as directory:
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                cwd=directory,
                env=_environment(),
                start_new_session=True,
                deliver_cancel=_end,
            )
            process: trio.Process = await nursery.start(start)
            said: deque[str] = deque(maxlen=KEPT_LINES)
            found: dict[str, tuple[str, int]] = {}
            ready = trio.Event()
            nursery.start_soon(_listen, process, said, found, ready)
            with trio.move_on_after(START_TIMEOUT):
                await ready.wait()
            if len(found) < 2:
                nursery.cancel_scope.cancel()
                raise ServerFailed(f"a server did not start: {' / '.join(said) or 'it said nothing'}")
            server = Process(process, said, found)
            nursery.start_soon(server.wait_ended)
            yield server
            nursery.cancel_scope.cancel()


async def _listen(
    process: trio.Process, said: deque[str], found: dict[str, tuple[str, int]], ready: trio.Event
) -> None:
    """Reads what the server prints, so that it never waits for us; `ready` once both addresses are known, or it has
    ended."""
    assert process.stderr is not None
    rest = ""
    async for data in process.stderr:
        *lines, rest = (rest + data.decode(errors="replace")).split("\n")
        said.extend(line[:300] for line in lines if line.strip())
        for line in lines if not ready.is_set() else ():
            if match := _ADDRESS.match(line):
                found.setdefault(match[1], (match[2].strip("[]"), int(match[3])))
        if len(found) == 2:
            ready.set()
    ready.set()


async def _end(process: trio.Process) -> None:
    """SIGTERM, and SIGKILL where that does not help in time. What runs this is shielded."""
    process.terminate()
    with trio.move_on_after(STOP_TIMEOUT):
        await process.wait()
        return
    process.kill()


async def effective_config(arguments: Sequence[str]) -> dict[str, Any]:
    """What ``trio-ws serve`` with these arguments would run with: name to ``value`` and ``from``.

    Raises:
      ServerFailed: it would not run; the message is its own.
    """
    done = await trio.run_process(
        [sys.executable, "-m", "trio_ws", "config", "--json", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=_environment(),
    )
    if done.returncode:
        raise ServerFailed(done.stderr.decode(errors="replace").strip().removeprefix("trio-ws: "))
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}
