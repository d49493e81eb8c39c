"""The bus between nodes: messages in order, and once as a rule; what goes to one node in a turn goes together.

While the store can't be reached, or nobody listens there for a moment, what waits is sent again. So an outage that is
short loses little, and may bring something twice. Nothing that matters may hang on the bus alone: who needs an answer
asks again (`calls.py`), who needs all of a stream numbers it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from ..core.histogram import Histogram
from ..errors import StoreError
from ..store import SharedStore
from . import messages
from .messages import Message, Told

logger = logging.getLogger(__name__)

Take: TypeAlias = Callable[[str, Message], None]
"""Is given the sender and a message; it must not wait."""

Hear: TypeAlias = Callable[[str, bytes], None]
"""Is given the sender and what it tells; it must not wait."""

MOST_WAITING: Final = 8 * 1024 * 1024
"""Bytes that may wait to be sent to one node; what is beyond is lost."""

MOST_AT_ONCE: Final = 256 * 1024
"""About how many bytes go in one sending."""

AGAIN: Final = 0.05
"""Seconds until something is sent again that could not be sent, or that nobody has listened to."""

DEAF_PATIENCE: Final = 1.0
"""Seconds for which nobody has listened at a node after which what waits for it is lost."""

DEAF: Final = 1000
"""Of how many nodes it is remembered at most that nobody listens there; most of them are gone for good."""

RETURN: Final = 1.5
"""Seconds that a node may need to listen again, after the store could not be reached."""

PATIENCE: Final = 60.0
"""Seconds for which the store could not be reached after which what waits is lost."""


class Bus:
    """One node's end of the bus.

    Args:
      store: what carries it.
      nursery: where its tasks run.
      wall_clock: seconds since the Unix epoch.

    Attributes:
      sent, received, lost: messages, since the start; lost are those known to be.
      closed: this node's hub has ended: nothing is sent any more.
      delay: how long what has come was on its way, as far as the wall clocks of the machines agree.
      on_message: takes what is no `Told`; `on_closed` is called when it has ended.
    """

    def __init__(
        self, store: SharedStore, nursery: trio.Nursery, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.sent = self.received = self.lost = 0
        self.delay = Histogram()
        self.closed = False
        self.on_message: Take | None = None
        self.on_closed: Callable[[], object] = bool
        self._wall_clock = wall_clock
        self._store = store
        self._nursery = nursery
        self._hearers: dict[str, Hear] = {}
        self._deaf: dict[str, float] = {}  # since when
        self._failed_at = -math.inf
        self._waiting: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}

    def hear(self, subject: str, hear: Hear) -> None:
        """Have what is told of a subject handed to `hear`."""
        self._hearers[subject] = hear

    def post(self, node: str, message: Message) -> None:
        """Have a message sent, soon. Not a checkpoint, and raises nothing: it may be lost."""
        if self.closed:
            self.lost += 1
            return
        data = messages.encode(message)
        waiting = self._waiting.get(node)
        if waiting is None:
            self._waiting[node], self._sizes[node] = [data], len(data)
            self._nursery.start_soon(self._send, node)
        elif self._sizes[node] + len(data) > MOST_WAITING:
            self.lost += 1
        else:
            waiting.append(data)
            self._sizes[node] += len(data)

    def tell(self, node: str, subject: str, body: bytes) -> None:
        """As `post`, of something that needs no answer."""
        self.post(node, Told(subject, body))

    def _parcel(self, encoded: list[bytes]) -> bytes:
        return messages.parcel(self._store.node, self._wall_clock(), encoded)

    async def _send(self, node: str) -> None:
        """Send what waits for one node, all that has come meanwhile at once, until nothing does."""
        try:
            while waiting := self._waiting[node]:
                size = count = 0
                while count < len(waiting) and size < MOST_AT_ONCE:
                    size += len(waiting[count])
                    count += 1
                self._waiting[node] = waiting[count:]
                self._sizes[node] -= size
                if not await self._deliver(node, waiting[:count]):
                    self.lost += count + len(self._waiting[node])
                    return
                self.sent += count
        finally:
            del self._waiting[node], self._sizes[node]

    async def _deliver(self, node: str, encoded: list[bytes]) -> bool:
        """Send this until it is heard; returns False where that is given up."""
        began = trio.current_time()
        while not self.closed:
            try:
                heard = await self._store.send(node, self._parcel(encoded))
            except StoreError:
                self._failed_at = trio.current_time()
                if self._failed_at - began >= PATIENCE:
                    return False
            else:
                if heard:
                    self._deaf.pop(node, None)
                    return True
                self._deaf.setdefault(node, trio.current_time())
                if self.deaf_for(node) >= DEAF_PATIENCE:
                    while len(self._deaf) > DEAF:
                        del self._deaf[next(iter(self._deaf))]
                    return False
            await trio.sleep(AGAIN)
        return False

    def deaf_for(self, node: str) -> float:
        """Seconds for which nobody has listened at a node to what was sent there; 0 where somebody does. After an
        outage of the store, all have a moment to listen again."""
        since = self._deaf.get(node)
        return 0.0 if since is None else max(0.0, trio.current_time() - max(since, self._failed_at + RETURN))

    def backlog(self, node: str) -> int:
        """How many bytes wait to be sent to a node, beside those that are on their way."""
        return self._sizes.get(node, 0)

    def is_behind(self, node: str) -> bool:
        """Whether something waits to be sent to a node."""
        return node in self._waiting

    async def run(self) -> None:
        """Take what is sent to this node, until cancelled."""
        try:
            await self._store.listen(self._take)
        finally:
            self.closed = True
            self.on_closed()

    def _take(self, data: bytes) -> None:
        try:
            sender, at, received = messages.open_parcel(data)
        except ValueError:
            logger.warning("what came over the bus makes no sense", extra={"bytes": len(data)})
            return
        self.delay.record(max(0.0, self._wall_clock() - at))
        for message in received:
            self.received += 1
            try:
                self._hand_over(sender, message)
            except Exception:
                logger.exception("a message of another node could not be handled", extra={"sender": sender})

    def _hand_over(self, sender: str, message: Message) -> None:
        if isinstance(message, Told):
            hear = self._hearers.get(message.subject)
            if hear is not None:
                hear(sender, message.body)
        elif self.on_message is not None:
            self.on_message(sender, message)
