"""`trio-ws serve --workers` over a real Redis: a rolling restart, and a killed worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import trio
from loopback.redis import RedisServer

import trio_ws

from .fake_admin import environment, finish, start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED, and nothing was shown: workers need Linux"),
]

USERS = [f"user-{n}" for n in range(6)]


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of other processes
        await trio.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that another has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@attrs.define
class Tab:
    """A client, and what it has processed."""

    url: str
    user: str
    got: list[Any] = attrs.Factory(list)
    statistics: Callable[[], Any] = dict

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio_ws.connect(self.url, user=self.user) as client:
            self.statistics = client.statistics
            await client.wait_live()
            task_status.started()
            async for event in client:
                self.got.append(event.payload)


@attrs.define
class Publisher:
    """Publishes to all users in turn, each event until it is accepted, over a connection of its own: by any worker."""

    admin: str
    sent: int = 0
    stopping: bool = False
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopping:
            await self.publish()
        self.stopped = True

    async def publish(self) -> None:
        event = {"type": "tool_completed", "payload": self.sent, "id": f"event-{self.sent}"}
        while True:
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=20) as client:
                try:
                    answer = await client.post(
                        f"{self.admin}/v1/users/{USERS[self.sent % len(USERS)]}/events", json=event
                    )
                except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    continue  # it came to a worker that was killed then
            if answer.status_code < 300:
                self.sent += 1
                return
            assert answer.status_code == 503, answer.text
            await trio.sleep(0.05)


async def test_a_rolling_restart_and_a_killed_worker_lose_nothing_and_refuse_nobody(
    redis_server: RedisServer,
) -> None:
    process = start(
        *("serve", "--workers", "2", "--store", redis_server.url, "--insecure"),
        *("--port", "0", "--admin-port", "0", "--drain-timeout", "3"),
        env=environment(),
    )
    assert process.stderr is not None
    told: list[str] = []
    while not (told and told[-1].startswith("admin on")):
        told.append(process.stderr.readline().decode())
        assert told[-1], told
    ws, admin = (line.split()[-1] for line in told[-2:])
    port = urlsplit(ws).port
    assert port is not None
    refused: list[BaseException] = []

    async def knock() -> None:
        """Come again and again, as somebody new."""
        while True:
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 426")
            except (OSError, trio.BrokenResourceError) as error:
                refused.append(error)

    with trio.fail_after(240):
        async with trio.open_nursery() as nursery:
            tabs = [Tab(ws, user) for user in USERS]
            for tab in tabs:
                await nursery.start(tab.run)
            publisher = Publisher(admin)
            nursery.start_soon(publisher.run)
            await until(lambda: publisher.sent > 20)

            before = children(process.pid)
            assert len(before) == 2
            async with trio.open_nursery() as knocking:
                knocking.start_soon(knock)
                process.send_signal(signal.SIGUSR2)
                await until(lambda: len(now := children(process.pid)) == 2 and not {*before} & {*now})
                knocking.cancel_scope.cancel()
            assert not refused

            after = children(process.pid)
            os.kill(after[0], signal.SIGKILL)
            await until(lambda: len(now := children(process.pid)) == 2 and after[0] not in now)
            sent = publisher.sent
            await until(lambda: publisher.sent > sent + 20)
            publisher.stopping = True
            await until(lambda: publisher.stopped)
            await until(lambda: sum(len(tab.got) for tab in tabs) >= publisher.sent)
            for first, tab in enumerate(tabs):
                assert tab.got == list(range(first, publisher.sent, len(USERS)))
                statistics = tab.statistics()
                assert (statistics.gaps, statistics.resets, statistics.violations) == (0, 0, 0)
            nursery.cancel_scope.cancel()
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 0
    assert "all workers are replaced" in err
