"""The hub's tasks that wait for time: one for all deadlines, one that cleans up."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from .hub import Hub

logger = logging.getLogger(__name__)

SWEEP_TURN: Final = 100
"""How many mailboxes are swept before other tasks get a turn."""


class Deadlines:
    """One task, one cancel scope: its deadline is the earliest of all timers, and of the confirmations."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._scope = trio.CancelScope()

    def move(self, at: float) -> None:
        """The earliest deadline is now `at`."""
        if at < self._scope.deadline:
            self._scope.deadline = at

    async def run(self) -> None:
        """Serve deadlines until cancelled."""
        hub = self._hub
        while True:
            self._scope = trio.CancelScope(deadline=min(hub.timers.next(), hub.confirmations.deadline))
            with self._scope:
                await trio.sleep_forever()
            now = hub.clock()
            try:
                hub.confirmations.expire(now)
                hub.timers.run(now)
                hub.react()
            except Exception:
                logger.exception("a deadline failed")


async def cleanup(hub: Hub) -> None:
    """Each `cleanup_interval`: end expired sessions, let go what has passed its time, forget idle mailboxes."""
    while True:
        await trio.sleep(hub.config.cleanup_interval)
        try:
            await _clean(hub)
        except Exception:
            logger.exception("cleaning up failed")


async def _clean(hub: Hub) -> None:
    now = hub.clock()
    for session in hub.pool.expired(now):
        hub.end(session)
    keep = hub.config.session_ttl + hub.config.event_ttl
    for count, box in enumerate(list(hub.buffer.mailboxes.values()), 1):
        if box.closed:
            continue
        box.sweep(now)
        idle = now - box.last_event_at > keep if box.last_event_at > -math.inf else True
        if idle and not box.entries and not box.sessions and not hub.room.line(box.user):
            hub.buffer.close(box)
        if count % SWEEP_TURN == 0:
            hub.react()
            await trio.lowlevel.checkpoint()
            now = hub.clock()
    hub.react()
