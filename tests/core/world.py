"""A small world to test the core in: a buffer, a pool, a clock that stands still, and clients that parse."""

from __future__ import annotations

import json
import math
from typing import Any

from trio_ws.config import Config
from trio_ws.core.buffer import Buffer
from trio_ws.core.confirmations import Confirmations
from trio_ws.core.entry import FIRM, Entry
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.pool import Admitted, Ask, Pool, Refused
from trio_ws.core.session import Session

from .model import make_entry

PLENTY = 1 << 30


class World:
    """All of the core, within the limits given."""

    def __init__(self, **limits: Any) -> None:
        self.config = Config(**limits)
        self.now = 100.0
        self._ids = 0
        self.buffer = Buffer(self.config, self.new_id)
        self.books = self.buffer.books
        self.confirmations = Confirmations(self.config.confirm_timeout)
        self.pool = Pool(self.config, books=self.books, confirmations=self.confirmations, new_id=self.new_id)

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids}"

    @property
    def ada(self) -> Mailbox:
        return self.buffer.mailbox("ada")

    def offer(
        self, payload: Any = None, *, user: str = "ada", ttl: float = math.inf, **fields: Any
    ) -> Entry | None:
        """Publish; None where it is refused."""
        fields.setdefault("id", f"e{self.buffer.mailbox(user).head + 1}")
        entry = make_entry(payload=payload, now=self.now, ttl=ttl, **fields)
        return entry if self.buffer.accept(self.buffer.mailbox(user), entry) else None

    def publish(self, payload: Any = None, **fields: Any) -> Entry:
        """Publish; there must be room."""
        entry = self.offer(payload, **fields)
        assert entry is not None
        assert self.books.balanced
        return entry

    def critical(self, payload: Any = None, **fields: Any) -> Entry:
        return self.publish(payload, type="agent_started", retention=FIRM, **fields)

    def delta(self, text: Any, **fields: Any) -> Entry:
        return self.publish(text, type=fields.pop("type", "token"), merge=True, **fields)

    def ask(self, user: str = "ada", **ask: Any) -> Admitted | Refused:
        return self.pool.admit(self.buffer.mailbox(user), Ask(**ask), self.now)

    def connect(self, user: str = "ada", **ask: Any) -> Session:
        """As the hub does it: who is displaced ends, then the connection takes its session over."""
        admitted = self.ask(user, **ask)
        assert isinstance(admitted, Admitted)
        for displaced in admitted.displaced:
            self.pool.end(displaced, self.now)
        self.pool.attach(admitted, object(), self.now)
        return admitted.session

    def come_back(self, session: Session, seq: int | None = None) -> Session:
        """The client of `session` reconnects, with `seq` as its cursor."""
        return self.connect(session.box.user, session=session.id, epoch=session.box.epoch, seq=seq)

    def take(self, session: Session, max_bytes: int = PLENTY) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in session.take(self.now, max_bytes)]

    def seqs(self, session: Session) -> list[Any]:
        """What the session is given next: seqs of events, and ``(from, to, reason)`` of gaps."""
        return [
            frame["seq"] if frame["t"] == "event" else (frame["from"], frame["to"], frame["reason"])
            for frame in self.take(session)
            if frame["t"] != "live"
        ]

    def process(self, session: Session) -> None:
        """Take and ack all that is there."""
        self.take(session)
        session.ack(session.cursor, self.now)


def held(box: Mailbox) -> list[Any]:
    """What stands in a log: seqs, and ``(first, last)`` of joined deltas."""
    return [e.seq if e.first == e.seq else (e.first, e.seq) for e in box.entries.values()]
