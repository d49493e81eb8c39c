"""What is looked at once all has converged: that nothing breaks by itself, and that half-open connections recover.

The faults of a plan come so thick that they excuse much: a client that answers no ping looks like one that was cut off.
So there is a quiet time at the end, in which no connection may come or go; and then each connection falls silent
without a word, and what is published meanwhile must be processed within the time that is promised for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ...client.inbox import REDO_AFTER
from ...event import Priority
from ...hub import Hub
from ..checkers.sight import Published
from .tabs import Tab

if TYPE_CHECKING:
    from ..scenario import World

QUIET: Final = 8.0
"""Seconds in which nothing may break: more than a heartbeat, its grace and an attempt to connect take."""

RECOVERED_IN: Final = 5.0
"""Seconds from the cut to the last missed event processed."""

DELIVERED_IN: Final = REDO_AFTER + 1
"""Seconds that an event takes at most, on a good network, behind one that the handler has failed on before."""

CONFIRMED_IN: Final = 1.0
"""Seconds to an ack, beside those that it may wait for company: it needs no pong to ride on."""


class Probe:
    """Probes a world that has healed.

    Args:
      tabs: those that have stayed, one a user.
    """

    def __init__(self, world: World, tabs: list[Tab]) -> None:
        self._world = world
        self._tabs = tabs

    async def run(self) -> None:
        """A quiet time, then silence on all connections. Fails what does not hold."""
        hub = self._world.hub
        assert hub is not None  # faults are over, and it was there when all had healed
        await self._deliver(hub, "all is well", DELIVERED_IN + self._world.plan.handler)
        if self._world.plan.expires:
            return  # credentials that run out end a connection now and then
        await trio.sleep(2)  # who was told to stop has gone by then
        before = self._clients()
        await trio.sleep(QUIET)
        if (after := self._clients()) != before:
            self._fail("in the quiet, connections last", f"{before} connections became {after}")
        await self._confirm(hub)
        self._world.sim.trace.note("silence")
        for connection in self._world.sim.network.connections:
            connection.stall("both")
        await self._deliver(hub, "a half-open connection is recovered in time", RECOVERED_IN)

    def _clients(self) -> list[int]:
        return [0 if tab.client is None else tab.client.statistics().connections for tab in self._tabs]

    async def _confirm(self, hub: Hub) -> None:
        """Publish something that is in no hurry to each user who acks at all; it must be confirmed in time."""
        events = [
            await self._publish(hub, tab.user, "note", Priority.NORMAL)
            for tab in self._tabs
            if not tab.looks_on
        ]
        await trio.sleep(CONFIRMED_IN + hub.config.batch_interval + hub.config.ack_delay)
        for event in events:
            # Where a mailbox holds next to nothing, another may have taken its place.
            if event.entry.confirmed_at is None and event.entry.reason is None:
                self._fail("in the quiet, acks come in time", f"{event} is not confirmed in {CONFIRMED_IN} s")

    async def _deliver(self, hub: Hub, invariant: str, seconds: float) -> None:
        """Publish something critical to each user, which must be processed in time."""
        events: list[Published] = []
        with trio.move_on_after(seconds) as patience:
            for tab in self._tabs:
                events.append(await self._publish(hub, tab.user, "alarm", Priority.CRITICAL))
            while True:
                await trio.sleep(0.05)
                if all(event.processed for event in events):
                    break
        if patience.cancelled_caught:
            late = [str(event) for event in events if not event.processed] or ["an event without room"]
            self._fail(invariant, f"{late[0]} was not processed within {seconds} s")

    async def _publish(self, hub: Hub, user: str, type: str, priority: Priority) -> Published:
        record = self._world.record
        token = len(record.events) + 1
        event = Published(
            token=token,
            user=user,
            type=type,
            text=f"{token}.;",
            life=record.life,
            priority=priority,
            tracked=priority is Priority.CRITICAL,
            delta=False,
            key=None,
            mortal=False,
            asked_at=trio.current_time(),
        )
        payload = record.publish(event)
        record.accepted(event, await hub.publish(user, event.type, payload, priority=event.priority))
        return event

    def _fail(self, invariant: str, text: str) -> None:
        self._world.record.fail(invariant, text)
