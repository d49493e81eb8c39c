"""When the checkers look though nothing has happened: what should have happened by then may not have.

They look after each step of the hub in any case. Between two steps only time goes on, and each checker knows when it
would have something to say (`Checker.due`). So a time in which nothing is due costs nothing, and nothing that is late
goes unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .timers import Alarm, Timers

LOOK_AFTER: Final = 0.25
"""Simulated seconds after a step or a look at which the next look comes at the earliest."""


class Looks:
    """Looks when it is time.

    Args:
      timers: of the run.
      look: has the checkers look.
      due: when they would have something to say, if nothing happens.
    """

    def __init__(self, timers: Timers, look: Callable[[], object], due: Callable[[], float]) -> None:
        self._timers = timers
        self._look = look
        self._due = due
        self._alarm = Alarm(timers)
        self._alarm.arm(math.inf, self._ring)

    def stepped(self) -> None:
        """Something has happened: what it entails may be due before what was known of."""
        self._alarm.set(self._timers.now() + LOOK_AFTER)

    def _ring(self) -> None:
        self._look()
        self._alarm.arm(max(self._timers.now() + LOOK_AFTER, self._due()), self._ring)
