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
"""Simulated seconds after a step in which whatever it has brought up can't be late; and between two looks of a checker
that does not know when to look."""


class Looks:
    """Looks when it is time.

    Args:
      timers: of the run.
      look: has the checkers look, and returns when they would have something to say, if nothing happens.
    """

    def __init__(self, timers: Timers, look: Callable[[], float]) -> None:
        self._timers = timers
        self._look = look
        self._alarm = Alarm(timers)
        self._alarm.arm(math.inf, self._ring)

    def stepped(self) -> None:
        """Something has happened: what it entails may be due before what was known of."""
        self._alarm.set(self._timers.now() + LOOK_AFTER)

    def _ring(self) -> None:
        due, now = self._look(), self._timers.now()
        self._alarm.arm(due if due > now else now + LOOK_AFTER, self._ring)
