"""This package's server with everything on, driven as an application would drive it. Arguments: PORT [options]

Each event is published to its user's mailbox, held until a client has acked it, replayed after a cut, and counted.
Limits are scaled to the scenarios, which have up to 5,000 connections from one address; all else is as by default.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import deque
from functools import partial
from typing import Any

import trio

import trio_ws

from ..workload import SETTLE_STEP, SETTLE_TIMEOUT, Envelope, OnTrio, Workload

SCALED: dict[str, Any] = {
    "max_connections": 10_000,
    "max_events_per_user": 512,
    "max_events": 1_000_000,
    "max_bytes": 512 * 2**20,
    "connect_rate": 1e6,
    "connect_burst": 100_000,
}


class OnHub(Workload):
    """The workload over a hub, by its public names alone.

    Args:
      hub: it.
      priority: that of the events; None takes the default, NORMAL.
    """

    def __init__(self, hub: trio_ws.Hub, priority: trio_ws.Priority | None) -> None:
        super().__init__(OnTrio())
        self._hub = hub
        self._priority = priority
        self._last: dict[str, trio_ws.Receipt] = {}
        self._halves: dict[str, deque[trio_ws.Receipt]] = {}

    async def publish(self, user: str, event: Envelope) -> None:
        self._last[user] = await self._hub.publish(user, event["type"], event, priority=self._priority)

    async def broadcast(self, event: Envelope) -> None:
        await self._hub.broadcast("*", event["type"], event, priority=self._priority)

    def users(self) -> list[str]:
        return self._hub.users()

    async def room(self, user: str, window: int) -> int:
        """Half a window at a time: the half before the last one has to be acked."""
        halves = self._halves.setdefault(user, deque())
        if user in self._last:
            halves.append(self._last[user])
        if len(halves) == 2:
            await halves.popleft().confirmed(timeout=SETTLE_TIMEOUT)
        return window // 2

    async def settled(self) -> int:
        end = time.monotonic() + SETTLE_TIMEOUT
        while self._hub.statistics().events_held and time.monotonic() < end:  # noqa: ASYNC110 - as its peers do
            await trio.sleep(SETTLE_STEP)
        return self._hub.statistics().events_settled


async def main(port: int, priority: trio_ws.Priority | None, config: trio_ws.Config) -> None:
    """Serve, and do as told, until the input ends."""
    async with trio_ws.open_hub(config) as hub, trio.open_nursery() as nursery:
        await nursery.start(partial(trio_ws.serve, hub, port=port))
        await OnHub(hub, priority).serve()


if __name__ == "__main__":
    _parser = argparse.ArgumentParser()
    _parser.add_argument("port", type=int)
    _parser.add_argument("--critical", action="store_true")
    _parser.add_argument("--heartbeat", type=float, help="seconds between heartbeats, instead of the default")
    _parser.add_argument("--idle-heartbeat", type=float, help="the same, where nothing happens")
    _chosen = _parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _intervals = {"heartbeat_active": _chosen.heartbeat, "heartbeat_idle": _chosen.idle_heartbeat}
    _heartbeat: dict[str, Any] = {name: given for name, given in _intervals.items() if given}
    trio.run(
        main,
        _chosen.port,
        trio_ws.Priority.CRITICAL if _chosen.critical else None,
        trio_ws.Config(**SCALED, **_heartbeat),
    )
