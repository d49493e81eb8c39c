"""Handing things to the application one after the other, without ever waiting for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Handover(Generic[T]):
    """Hands things on, in order, in a task that lives while there are any.

    Args:
      nursery: where that task runs.
      handler: takes them; what it raises is logged.
      name: of the handler, for the log.
      limit: how many may wait for it; beyond that the oldest is let go, and logged.
    """

    def __init__(
        self, nursery: trio.Nursery, handler: Callable[[T], Awaitable[None]], name: str, *, limit: int
    ) -> None:
        self._nursery = nursery
        self._handler = handler
        self._name = name
        self._waiting: deque[T] = deque(maxlen=limit)
        self._busy = False

    def put(self, thing: T) -> None:
        """Have `thing` handed on. Not a checkpoint."""
        if len(self._waiting) == self._waiting.maxlen:
            logger.error("%s is too slow: the oldest that waits for it is let go", self._name)
        self._waiting.append(thing)
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._hand_on)

    async def _hand_on(self) -> None:
        try:
            while self._waiting:
                thing = self._waiting.popleft()
                try:
                    await self._handler(thing)
                except Exception:
                    logger.exception("%s failed", self._name)
        finally:
            self._busy = False
