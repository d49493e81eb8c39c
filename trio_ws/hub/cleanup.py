"""The periodic cleanup: expired sessions, events past their time, idle mailboxes."""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from .engine import Engine
from .reception import Reception

logger = logging.getLogger(__name__)

SWEEP_TURN: Final = 100
"""How many mailboxes are swept before other tasks get a turn."""


async def cleanup(engine: Engine, reception: Reception) -> None:
    """Each `cleanup_interval`: end expired sessions, let go what has passed its time, forget idle mailboxes."""
    while True:
        await trio.sleep(engine.config.cleanup_interval)
        try:
            await _clean(engine, reception)
        except Exception:
            logger.exception("cleaning up failed")


async def _clean(engine: Engine, reception: Reception) -> None:
    engine.revocations.forget_old(engine.wall_clock())
    now = engine.clock()
    for session in engine.pool.expired(now):
        reception.end(session)
    keep = engine.config.session_ttl + engine.config.event_ttl
    for count, box in enumerate(list(engine.buffer.mailboxes.values()), 1):
        if box.closed:
            continue
        box.sweep(now)
        idle = now - box.last_event_at > keep if box.last_event_at > -math.inf else True
        if idle and not box.entries and not box.sessions and not engine.room.line(box.user):
            engine.buffer.close(box)
            engine.timers.disarm(box)
        if count % SWEEP_TURN == 0:
            engine.react()
            await trio.lowlevel.checkpoint()
            now = engine.clock()
    engine.react()
