"""One task for all deadlines of a hub: its cancel scope's deadline is the earliest of all; moved, not polled."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..core.confirmations import Confirmations
from ..core.timers import Timers

logger = logging.getLogger(__name__)


class Deadlines:
    """Serves timers, and the confirmations' timeouts.

    Args:
      timers, confirmations: what has deadlines.
      clock: the hub's clock.
      react: what follows from the steps that are made.
    """

    def __init__(
        self,
        timers: Timers,
        confirmations: Confirmations,
        clock: Callable[[], float],
        react: Callable[[], None],
    ) -> None:
        self._timers = timers
        self._confirmations = confirmations
        self._clock = clock
        self._react = react
        self._scope = trio.CancelScope()

    def move(self, at: float) -> None:
        """The earliest deadline is now `at`."""
        if at < self._scope.deadline:
            self._scope.deadline = at

    async def run(self) -> None:
        """Serve deadlines until cancelled."""
        while True:
            self._scope = trio.CancelScope(deadline=min(self._timers.next(), self._confirmations.deadline))
            with self._scope:
                await trio.sleep_forever()
            now = self._clock()
            try:
                self._confirmations.expire(now)
                self._timers.run(now)
                self._react()
            except Exception:
                logger.exception("a deadline failed")
