"""A validation from beginning to end: servers up, phase after phase, servers down; `validate` returns what was seen."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import attrs
import trio

from .. import COMPILED, __version__
from ..addresses import netloc
from ..faults import FaultyNetwork
from . import phases
from .arm import Arm, StockWatcher, TrioWatcher
from .backend import BackendFailed, open_backend
from .findings import Findings
from .phases import Stage
from .plan import PHASES
from .process import Process, effective_config, running

SERVE: Final = ("--insecure", "--port", "0", "--admin-port", "0", "--store", "memory")
"""How the server is started; what the command line adds comes after, and beats it."""
SAMPLE_EVERY: Final = 0.5
TICK: Final = 0.25


class Progress(Protocol):
    """Who is told how far it is."""

    def begin(self, title: str, seconds: float) -> None:
        """A phase begins that will take about so long."""

    def advance(self, seconds: float) -> None:
        """It has gone on for so long."""

    def end(self, title: str, seconds: float) -> None:
        """It has ended, after so long."""


@attrs.frozen(kw_only=True)
class Target:
    """A server that runs already.

    Attributes:
      http: the URL of its admin API.
      ws: the URL of its WebSockets, ``ws://`` only.
      api_key: what the API asks for.
    """

    http: str
    ws: str
    api_key: str | None = None


async def validate(
    findings: Findings,
    progress: Progress,
    *,
    target: Target | None = None,
    only: Sequence[str] = tuple(PHASES),
) -> None:
    """Does what the plan of `findings` says, and writes down in them what it sees, from the first moment on.

    Args:
      findings: with the plan, and the server's arguments.
      progress: told how far it is.
      target: a server that runs already; None starts one. Phases that need a server of our own are left out then.
      only: the phases to run.

    Raises:
      ServerFailed: a server did not start, or ended by itself.
      BackendFailed: it does not answer.

    Cancelling it ends the servers; what was measured until then stands in `findings`.
    """
    findings.machine = machine()
    for phase in PHASES:
        if phase not in only:
            findings.skipped[phase] = "not asked for"
        elif target is not None and phase in ("overflow", "pool"):
            findings.skipped[phase] = "needs a server of its own"
    if target is None:
        findings.config = await effective_config([*SERVE, *findings.arguments])
    findings.began = trio.current_time()
    async with AsyncExitStack() as stack:
        arms = [
            await stack.enter_async_context(_trio_ws(findings.arguments, target)),
            await stack.enter_async_context(_stock()),
        ]
        for arm in arms:
            await arm.backend.stats()  # who can't be reached, or asks for a key, is told of now
        try:
            prefix = f"validate-{secrets.token_hex(4)}-" if target is not None else ""
            await _phases(findings, arms, progress, prefix)
        finally:
            with trio.move_on_after(5, shield=True):
                await _take_stock(findings, arms)


async def _phases(findings: Findings, arms: Sequence[Arm], progress: Progress, prefix: str) -> None:
    lengths = findings.plan.seconds()
    async with trio.open_nursery() as nursery:
        stage = Stage(findings.plan, arms, findings, nursery, partial(_another, findings.arguments), prefix)
        nursery.start_soon(_sample, stage)
        for name, title in PHASES.items():
            if name in findings.skipped:
                continue
            function: Callable[[Stage], Awaitable[None]] = getattr(phases, name)
            began = trio.current_time()
            findings.phases[name] = (began, None)
            progress.begin(title, lengths[name])
            async with trio.open_nursery() as beside:
                beside.start_soon(_tick, progress, began)
                await function(stage)
                beside.cancel_scope.cancel()
            ended = trio.current_time()
            findings.phases[name] = (began, ended)
            progress.end(title, ended - began)
        nursery.cancel_scope.cancel()


async def _tick(progress: Progress, began: float) -> None:
    while True:
        progress.advance(trio.current_time() - began)
        await trio.sleep(TICK)


async def _sample(stage: Stage) -> None:
    """Looks at the servers now and then."""
    while True:
        for arm in stage.arms:
            await phases.look(stage, arm)
        await trio.sleep(SAMPLE_EVERY if stage.plan.duration < 120 else 2 * SAMPLE_EVERY)


async def _take_stock(findings: Findings, arms: Sequence[Arm]) -> None:
    """The figures at the end, of servers and clients; of a server that does not answer there are none."""
    for arm in arms:
        side = findings.after if arm.seqs else findings.before
        side.cpu = None if arm.process is None else arm.process.cpu
        for watcher in arm.watchers.values():
            for name, value in watcher.figures().items():
                side.clients[name] = side.clients.get(name, 0) + value
        try:
            side.stats = await arm.backend.stats()
        except BackendFailed:
            pass


# --- The servers ---


@asynccontextmanager
async def _trio_ws(arguments: Sequence[str], target: Target | None) -> AsyncIterator[Arm]:
    if target is not None:
        async with _arm("trio-ws", target, None) as arm:
            yield arm
        return
    async with running("trio_ws", ["serve", *SERVE, *arguments]) as process:
        local = Target(http=f"http://{netloc(*process.http)}", ws=f"ws://{netloc(*process.ws)}/ws")
        async with _arm("trio-ws", local, process) as arm:
            yield arm


def _another(arguments: Sequence[str], more: Sequence[str]) -> AbstractAsyncContextManager[Arm]:
    return _trio_ws([*arguments, *more], None)


@asynccontextmanager
async def _stock() -> AsyncIterator[Arm]:
    async with running("trio_ws.validation.stock", []) as process:
        local = Target(http=f"http://{netloc(*process.http)}", ws=f"ws://{netloc(*process.ws)}/ws")
        async with _arm("stock", local, process) as arm:
            yield arm


@asynccontextmanager
async def _arm(name: str, target: Target, process: Process | None) -> AsyncIterator[Arm]:
    """A server with a broken network before it."""
    tag = secrets.token_hex(4)
    parts = urlsplit(target.ws)
    network = FaultyNetwork(parts.hostname or "", parts.port or 80)
    async with open_backend(target.http, tag, target.api_key) as backend, trio.open_nursery() as nursery:
        [(host, port), *_] = await nursery.start(network.serve, "127.0.0.1", 0)
        yield Arm(
            name=name,
            backend=backend,
            network=network,
            address=netloc(host, port),
            path=parts.path or "/",
            seqs=name == "trio-ws",
            process=process,
            watch=TrioWatcher if name == "trio-ws" else StockWatcher,
        )
        nursery.cancel_scope.cancel()


def machine() -> dict[str, str]:
    """What this ran on: no name of a host, no path."""
    told = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio-ws": __version__ + (" (compiled)" if COMPILED else ""),
    }
    for package in ("trio", "trio-websocket", "starlette", "hypercorn"):
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            pass
    return told


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
