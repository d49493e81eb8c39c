"""The server process that is fuzzed, and the client beside it whose events must come in time, whatever others send."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
import websockets
from websockets.trio.client import connect

OPTIONS = (
    *("--insecure", "--port", "0", "--admin-port", "0", "--store", "memory", "--drain-timeout", "1"),
    # A fuzzer comes from one address, as many users, again and again; that is not what is tested here.
    *("--connect-rate", "1000000", "--connect-burst", "1000000"),
    *("--max-connections", "500", "--max-connections-per-user", "100", "--max-events", "20000"),
    *("--max-events-per-user", "100", "--cleanup-interval", "0.5", "--session-ttl", "2"),
)
CONTROL = "control"
PACE = 0.02
"""Seconds between two events of the control."""


class Died(Exception):
    """The server's process ended, and should not have, or not so."""


@attrs.define
class Target:
    """A server process, and what is known of it.

    Attributes:
      ws, admin: where it listens.
      log: the lines that tell of what should not be.
      lines: how many lines it has logged.
    """

    process: trio.Process
    ws: str = ""
    admin: str = ""
    log: list[str] = attrs.Factory(list)
    lines: int = 0

    @property
    def port(self) -> int:
        """Of its WebSocket."""
        return int(self.ws.split(":")[2].split("/")[0])

    def resources(self) -> dict[str, int]:
        """What it holds: descriptors, threads, and resident memory in KiB."""
        proc = Path(f"/proc/{self.process.pid}")
        status = (proc / "status").read_text()
        found = {name: int(n) for name, n in re.findall(r"(VmRSS|Threads):\s+(\d+)", status)}
        return {
            "descriptors": len(os.listdir(proc / "fd")),
            "threads": found["Threads"],
            "memory": found["VmRSS"],
        }


@asynccontextmanager
async def running() -> AsyncIterator[Target]:
    """A server while the block runs; it must then end in order. Died where it ends otherwise, or before."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_ws", "serve", *OPTIONS],
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # what interrupts the fuzzer on its terminal is not meant for the server
    )
    target = Target(process)
    started = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_log, target, started)
            with trio.fail_after(60):
                await started.wait()
            yield target
            ended = process.poll()
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(30):
                status = await process.wait()
        if ended is not None or status != 0:
            raise Died(f"the server ended with {status}" + ("" if ended is None else " before its time"))
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _read_log(target: Target, started: trio.Event) -> None:
    rest = ""
    assert target.process.stderr is not None
    async for data in target.process.stderr:
        *lines, rest = (rest + data.decode(errors="replace")).split("\n")
        target.lines += len(lines)
        for line in lines:
            if line.startswith("listening on "):
                target.ws = line.removeprefix("listening on ").strip()
            elif line.startswith("admin on "):
                target.admin = line.removeprefix("admin on ").strip()
                started.set()
            elif _is_failure(line) and len(target.log) < 200:
                target.log.append(line)
    started.set()


def _is_failure(line: str) -> bool:
    """Whether a line of the log tells of what should not be.

    A dead letter is what nobody acked, as is the alert that follows it; how fast a loaded machine is raises others.
    """
    expected = "dead letter" in line or "trio_ws.hub.alerts" in line
    return bool(re.search(r"\[(error|critical) |Traceback|Error\b", line)) and not expected


@attrs.define
class Control:
    """A well-behaved client, and its publisher: each event must come once, in order, whole, and soon.

    Args:
      bound: seconds within which an event must come.
      users: who else gets events, so that there is something to ack.

    Attributes:
      latencies: of all events, in seconds.
      findings: what was late or wrong.
    """

    target: Target
    bound: float
    users: list[str]
    latencies: list[float] = attrs.Factory(list)
    findings: list[str] = attrs.Factory(list)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish and receive until cancelled; returns where it was disconnected, which is a finding."""
        try:
            async with (
                httpx.AsyncClient(base_url=self.target.admin, trust_env=False, timeout=30) as publisher,
                connect(self.target.ws, subprotocols=[websockets.Subprotocol("trio-ws.v1")]) as ws,
            ):
                await ws.send(json.dumps({"t": "hello", "user": CONTROL}))
                task_status.started()
                number = 0
                while True:
                    number += 1
                    began = trio.current_time()
                    await self._publish(publisher, number)
                    with trio.move_on_after(self.bound * 10) as patience:
                        await self._receive(ws, number)
                    took = trio.current_time() - began
                    self.latencies.append(took)
                    if took > self.bound:
                        self.findings.append(f"event {number} of the control took {took:.3f} s")
                    if patience.cancelled_caught:
                        self.findings.append(f"event {number} of the control was lost")
                        return
                    if self.users and number % 5 == 0:
                        await self._publish_to_others(publisher, number)
                    await trio.sleep(PACE)
        except (httpx.HTTPError, websockets.WebSocketException, OSError) as error:
            self.findings.append(f"the control was cut off: {error!r}")

    async def _publish(self, publisher: httpx.AsyncClient, number: int) -> None:
        event = {"type": "agent_thinking", "payload": {"for": CONTROL, "n": number}}
        answer = await publisher.post(f"/v1/users/{CONTROL}/events", json=event)
        if answer.status_code != 202:
            self.findings.append(f"an event of the control was refused: {answer.status_code} {answer.text}")

    async def _receive(self, ws: Any, number: int) -> None:
        """Wait for the event that has just been published; nothing else may come before it."""
        while True:
            message = json.loads(await ws.recv())
            for frame in message if isinstance(message, list) else [message]:
                if frame["t"] == "ping":
                    await ws.send('{"t":"pong"}')
                if frame["t"] in ("event", "gap", "error") and "retry" not in frame:
                    await ws.send(f'{{"t":"ack","seq":{frame.get("seq", 0)}}}')
                    if frame.get("seq") != number or frame.get("payload") != {"for": CONTROL, "n": number}:
                        self.findings.append(f"in place of event {number} the control got {frame}")
                    return

    async def _publish_to_others(self, publisher: httpx.AsyncClient, number: int) -> None:
        lines = []
        for at, user in enumerate(self.users):
            event: dict[str, Any] = {
                "user": user,
                "type": "note",
                "payload": {"for": user, "text": f"{number} "},
            }
            if (number // 5 + at) % 3 == 0:
                event |= {"merge": "append", "type": "token"}
            elif (number // 5 + at) % 3 == 1:
                event |= {"key": "k"}
            elif (number // 5 + at) % 7 == 0:
                event |= {"type": "agent_started", "ttl": 5}
            lines.append(json.dumps(event))
        answer = await publisher.post("/v1/events", content="\n".join(lines))
        if answer.status_code != 200:
            self.findings.append(f"events of others were refused: {answer.status_code}")
