"""Dead letters: critical events that nobody confirmed in their time. Each is logged, and handed to the application."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import trio

from ..core import payload as payloads
from ..core.entry import Entry
from ..core.mailbox import Mailbox

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A critical event that its user never confirmed, and whose time has passed."""

    user: str
    epoch: str
    seq: int
    id: str
    type: str
    payload: Any
    ts: float


OnDeadLetter: TypeAlias = Callable[[DeadLetter], Awaitable[None]]


class DeadLetters:
    """Hands dead letters on, one after the other, in a task that lives while there are any.

    Args:
      nursery: where that task runs.
      handler: takes them; what it raises is logged.
      limit: how many may wait for it; beyond that the oldest is let go, and logged.
    """

    def __init__(self, nursery: trio.Nursery, handler: OnDeadLetter | None, *, limit: int) -> None:
        self._nursery = nursery
        self._handler = handler
        self._waiting: deque[DeadLetter] = deque(maxlen=limit)
        self._busy = False

    def bury(self, box: Mailbox, entry: Entry, tail: bytes) -> None:
        """Note that `entry` of `box`, whose wire form was `tail`, expired unconfirmed. Not a checkpoint."""
        logger.error(
            "dead letter: a critical event was never confirmed",
            extra={"event_type": entry.type, "seq": entry.seq, "epoch": box.epoch},
        )
        if self._handler is None:
            return
        if len(self._waiting) == self._waiting.maxlen:
            logger.error("on_dead_letter is too slow: the oldest dead letter that waits for it is let go")
        self._waiting.append(
            DeadLetter(
                user=box.user,
                epoch=box.epoch,
                seq=entry.seq,
                id=entry.id,
                type=entry.type,
                payload=payloads.decode(b"{" + tail[1:])["payload"],
                ts=entry.ts,
            )
        )
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._hand_on, self._handler)

    async def _hand_on(self, handler: OnDeadLetter) -> None:
        try:
            while self._waiting:
                letter = self._waiting.popleft()
                try:
                    await handler(letter)
                except Exception:
                    logger.exception("on_dead_letter failed")
        finally:
            self._busy = False
