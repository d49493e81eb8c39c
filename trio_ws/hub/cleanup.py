"""The periodic cleanup: expired sessions, events past their time, idle mailboxes; here, and where users are asleep.

And memory comes back within its bound, once those for whom more was let in have gone.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from ..core.mailbox import Mailbox
from ..errors import StoreError, StoreUnavailable
from .engine import Engine
from .loading import Loader
from .reception import Reception

logger = logging.getLogger(__name__)

SWEEP_TURN: Final = 100
"""How many mailboxes are swept before other tasks get a turn."""


async def cleanup(engine: Engine, reception: Reception, loader: Loader) -> None:
    """Each `cleanup_interval`: end expired sessions, let go what has passed its time, forget idle mailboxes."""
    while True:
        await trio.sleep(engine.config.cleanup_interval)
        try:
            await _clean(engine, reception)
            while engine.buffer.is_over and loader.let_sleep():
                pass  # those for whom there was more than may be have gone
            await _clean_asleep(engine, loader)
        except (StoreError, StoreUnavailable):
            logger.warning("what has expired in the store is left there for now: the store can't be read")
        except Exception:
            logger.exception("cleaning up failed")


async def _clean(engine: Engine, reception: Reception) -> None:
    engine.revocations.forget_old(engine.wall_clock())
    now = engine.clock()
    for session in engine.pool.expired(now):
        reception.end(session)
    for count, box in enumerate(list(engine.buffer.mailboxes.values()), 1):
        sweep(engine, box, now)
        if count % SWEEP_TURN == 0:
            engine.react()
            await trio.lowlevel.checkpoint()
            now = engine.clock()
    engine.react()


def sweep(engine: Engine, box: Mailbox, now: float) -> None:
    """Let go what has passed its time in one mailbox, and the mailbox where nothing is left."""
    if box.closed:
        return
    box.sweep(now)
    if box.runs is not None:
        box.runs.forget_ended(now - engine.config.event_ttl)
        if box.runs.forgotten and box.track is not None:
            box.track.runs_forgotten()
    if box.track is not None:
        box.track.swept(now)
    keep = engine.config.session_ttl + engine.config.event_ttl
    idle = now - box.last_event_at > keep if box.last_event_at > -math.inf else True
    held = box.entries or box.rest is not None or box.sessions or box.runs
    if idle and not held and not engine.room.line(box.user):
        engine.buffer.close(box)
        engine.timers.disarm(box)


async def _clean_asleep(engine: Engine, loader: Loader) -> None:
    """Have logs in the store looked at of which something has expired: they are loaded for that, some at a time."""
    asleep, durability = engine.buffer.asleep, engine.durability
    while asleep and durability is not None:
        most = SWEEP_TURN + len(engine.buffer.mailboxes)
        due = [user for user in await durability.store.due(engine.wall_clock(), most) if user in asleep]
        if not due:
            return
        for user in due:
            await loader.load(user)
            if (box := engine.buffer.mailboxes.get(user)) is not None:
                sweep(engine, box, engine.clock())
        engine.react()
