"""Dead letters: critical events that nobody confirmed in their time. Each is logged, and handed to the application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import trio

from ..core import payload as payloads
from ..core.entry import Entry
from ..core.mailbox import Mailbox
from .handover import Handover

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
    """Logs dead letters, and hands them on; see `Handover`."""

    def __init__(self, nursery: trio.Nursery, handler: OnDeadLetter | None, *, limit: int) -> None:
        self._handover = handler and Handover(nursery, handler, "on_dead_letter", limit=limit)

    def bury(self, box: Mailbox, entry: Entry, tail: bytes) -> None:
        """Note that `entry` of `box`, whose wire form was `tail`, expired unconfirmed. Not a checkpoint."""
        logger.error(
            "dead letter: a critical event was never confirmed",
            extra={"event_type": entry.type, "seq": entry.seq, "epoch": box.epoch},
        )
        if self._handover is None:
            return
        self._handover.put(
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
