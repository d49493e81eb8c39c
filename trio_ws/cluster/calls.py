"""Calls from node to node, over a bus that may lose what it carries: asked again until answered, and done once.

Who is asked remembers what it answers, by the id of the call, until the next call says that the answer has come, or for
a while; a call that comes again while it is worked on is told so, and is not begun anew. Who asks gives up when the
other node lives no longer: then it may have been done or not.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import attrs
import trio

from ..config import KIB
from ..errors import HubClosed, StoreError
from .bus import Bus
from .messages import Answer, Busy, Call, Message

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[str, bytes], Awaitable[bytes]]
"""Is given who asks and the body of the call, and returns that of the answer. To say why it can't, it raises
`CallFailed`."""

AGAIN: Final = 0.1
"""Seconds until a call is asked again that nothing was heard of; twice that the next time, at most `PATIENCE`."""

PATIENCE: Final = 1.0
"""Seconds between looks at a call that takes its time."""

DEAF_FOR: Final = 0.3
"""Seconds for which nobody has listened at a node that is gone. A connection to the store is made again sooner."""

REMEMBERED: Final = 30.0
"""Seconds that answers are remembered, where nothing more is heard of who has asked."""

MOST_HEARD: Final = 1000
"""Of how many answers that have come a node is told at most."""


class NodeGone(StoreError):
    """The node that was asked does not live any more: what was asked may have been done or not."""


class CallFailed(Exception):
    """The node that was asked could not do it, and says why."""


LARGE: Final = 16 * KIB
"""Bytes of a call from which on it is large: only `LARGE_AT_ONCE` of these are on their way to one node, and all others
wait for one of them to arrive. Else what is relayed would wait behind all that is published."""

LARGE_AT_ONCE: Final = 2


@attrs.define(eq=False)
class _Asked:
    """A call of ours that waits for its answer.

    Attributes:
      heard: it has arrived.
      way: what is to be told of that, where it is large.
    """

    done: trio.Event
    way: trio.Semaphore | None
    heard: bool = False
    answer: Answer | None = None

    def arrived(self) -> None:
        """The other node has it; or nobody waits for it any more. Idempotent."""
        self.heard = True
        way, self.way = self.way, None
        if way is not None:
            way.release()


@attrs.define(eq=False)
class _Done:
    """A call of another node."""

    answer: Answer | None = None
    until: float = math.inf


class Calls:
    """One node's calls, its own and those of others.

    Args:
      bus: what carries them.
      nursery: where calls of others are worked on.
      lives: whether a node does, as far as is known.

    Attributes:
      made, repeated, failed: calls of this node, since the start.
    """

    def __init__(self, bus: Bus, nursery: trio.Nursery, lives: Callable[[str], bool]) -> None:
        self.made = self.repeated = self.failed = 0
        self._bus = bus
        self._nursery = nursery
        self._lives = lives
        self._handlers: dict[str, Handler] = {}
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._done: dict[tuple[str, int], _Done] = {}
        self._ways: dict[str, trio.Semaphore] = {}
        self._heard: dict[str, list[int]] = {}  # by node: whose answers have come, which is to be told
        self._swept_at = -math.inf
        bus.on_message = self._take
        bus.on_closed = self._end

    def handle(self, verb: str, handler: Handler) -> None:
        """Have calls of this verb answered by `handler`."""
        self._handlers[verb] = handler

    async def call(self, node: str, verb: str, body: bytes) -> bytes:
        """Ask a node, and wait for its answer, however long it takes. A checkpoint. Cancelled, it may have been done or
        not, and goes on there if it was begun.

        Raises:
          NodeGone: it lives no longer, or nobody listens there.
          CallFailed: it could not be done.
          HubClosed: this node's hub has ended, and hears no answer.
        """
        way = self._ways.setdefault(node, trio.Semaphore(LARGE_AT_ONCE)) if len(body) >= LARGE else None
        if way is not None:
            await way.acquire()
        id = next(self._ids)
        asked = self._asked[id] = _Asked(trio.Event(), way)
        self.made += 1
        pause = AGAIN
        call = Call(id, verb, body, self._heard.pop(node, []))
        try:
            self._bus.post(node, call)
            while True:
                with trio.move_on_after(pause):
                    await asked.done.wait()
                if asked.answer is not None:
                    break
                if self._bus.closed:
                    raise HubClosed("the hub has ended")
                deaf_for = self._bus.deaf_for(node)
                if deaf_for >= DEAF_FOR or not self._lives(node):
                    self.failed += 1
                    raise NodeGone(f"node {node} is gone")
                waited, pause = (
                    pause,
                    AGAIN if deaf_for else PATIENCE if asked.heard else min(2 * pause, PATIENCE),
                )
                if asked.heard:
                    call = Call(id, verb, b"")  # it is there, and known by its id
                if not self._bus.is_behind(node) and (waited >= PATIENCE or not asked.heard):
                    self.repeated += 1
                    self._bus.post(node, call)
        finally:
            del self._asked[id]
            asked.arrived()
        if asked.answer.error is not None:
            self.failed += 1
            raise CallFailed(asked.answer.error)
        return asked.answer.body

    def _end(self) -> None:
        for asked in self._asked.values():
            asked.done.set()

    def _take(self, sender: str, message: Message) -> None:
        if isinstance(message, Call):
            self._work_on(sender, message)
        elif isinstance(message, Answer | Busy):
            asked = self._asked.get(message.id)
            if asked is None:
                return
            asked.arrived()
            if isinstance(message, Answer) and asked.answer is None:
                asked.answer = message
                asked.done.set()
                heard = self._heard.setdefault(sender, [])
                if len(heard) < MOST_HEARD:
                    heard.append(message.id)

    def _work_on(self, sender: str, call: Call) -> None:
        for id in call.heard:
            if (known := self._done.get((sender, id))) is not None and known.answer is not None:
                del self._done[sender, id]
        done = self._done.get((sender, call.id))
        if done is None:
            self._forget_old()
            done = self._done[sender, call.id] = _Done()
            if len(call.body) >= LARGE:
                self._bus.post(sender, Busy(call.id))
            self._nursery.start_soon(self._work, sender, call, done)
        elif done.answer is None:
            self._bus.post(sender, Busy(call.id))
        else:
            self._bus.post(sender, done.answer)

    async def _work(self, sender: str, call: Call, done: _Done) -> None:
        handler = self._handlers.get(call.verb)
        try:
            if handler is None:
                answer = Answer(call.id, error=f"nothing is known of {call.verb}")
            else:
                answer = Answer(call.id, await handler(sender, call.body))
        except CallFailed as error:
            answer = Answer(call.id, error=str(error))
        except Exception as error:
            logger.exception("a call of another node failed", extra={"verb": call.verb})
            answer = Answer(call.id, error=f"it failed there: {type(error).__name__}")
        done.answer, done.until = answer, trio.current_time() + REMEMBERED
        self._bus.post(sender, answer)

    def _forget_old(self) -> None:
        now = trio.current_time()
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        for key in [key for key, done in self._done.items() if done.until <= now]:
            del self._done[key]
        for node in [node for node in self._heard if not self._lives(node)]:
            del self._heard[node]
        for node in [node for node in self._ways if not self._lives(node)]:
            del self._ways[node]  # who waits there yet is let on all the same
