"""A hub in this process, with clients that take everything at once: what an event costs where there are no sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import trio_ws
from trio_ws.core import wire
from trio_ws.core.closing import CloseCode
from trio_ws.core.pool import Ask
from trio_ws.hub import Attachment, Hub, Identity

from .workload import envelope

EVENT = envelope("u0000", 0)
PLENTY = 1 << 40


class Sink:
    """A connection's way out that takes everything and keeps nothing; see `trio_ws.hub.Link`."""

    def send(self, frames: list[bytes]) -> bool:
        return True

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        pass

    def expect_by(self, deadline: float) -> None:
        pass

    def authenticate(self, token: str) -> None:
        pass


class Client:
    """A user's connection, which acks when it is told to."""

    def __init__(self, hub: Hub, user: str) -> None:
        attached = hub.attach(Identity(user), Ask(), Sink())
        assert isinstance(attached, Attachment)
        self._attached = attached

    def ack(self) -> None:
        """Ack all that was sent."""
        self._attached.receive(wire.ack(self._attached.session.cursor))

    @property
    def behind(self) -> bool:
        """Whether something waits to be sent."""
        return self._attached.session.pending


@asynccontextmanager
async def hub_of(**limits: Any) -> AsyncIterator[Hub]:
    """A hub without limits except for those given, which flushes with the next turn of the loop."""
    unlimited = {
        "max_connections": 100_000,
        "max_events_per_user": PLENTY,
        "max_events": PLENTY,
        "max_bytes_per_user": PLENTY,
        "max_bytes": PLENTY,
        "batch_interval": 0,
        "drain_timeout": 0,
    }
    async with trio_ws.open_hub(trio_ws.Config(**unlimited | limits)) as hub:
        yield hub


async def taken(*clients: Client) -> None:
    """Until these clients have been sent all there is."""
    while any(client.behind for client in clients):
        await trio.lowlevel.checkpoint()


def publish(hub: Hub, user: str, events: int) -> None:
    """Publish so many events to a user."""
    for _ in range(events):
        hub.publish_nowait(user, "build.finished", EVENT)
