"""How many newcomers are handled before everybody else has a turn: as many as take a short time all together.

A handshake costs from fifty microseconds to some hundreds, by what it is: a request, a token with a public key's
signature, an end. One at a time would be fair to who is in already; and where thousands come back at once, and hardly
anybody is in, a turn of the loop for each is a waste. So it is measured, all the time, what they cost, and seen whether
there are others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

BUDGET: Final = 0.00025
"""Seconds of a turn that newcomers may take while there are others."""

MOST: Final = 4
"""How many of them there may be in a turn, however little they take."""

CALM: Final = 200
"""After so many turns in which nothing came of others, there are none."""

_WEIGHT: Final = 0.25  # of the last turn, in what one is taken to cost


class Pace:
    """The pace at which newcomers are handled.

    Args:
      clock: seconds.

    Attributes:
      many: how many may be handled before the next `turn`.
    """

    __slots__ = ("_calm", "_clock", "_each", "many")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.many = 1
        self._each = BUDGET
        self._calm = 0
        self._clock = clock

    def others(self) -> None:
        """Something has come of somebody who is in."""
        self._calm = 0

    async def turn(self, handled: int) -> None:
        """Give all others a turn, after so many newcomers were let go on. A checkpoint, but not for cancellation.

        What newcomers take, they take meanwhile. Tasks run in any order, so it may come out in the turn after: what one
        costs is right on average only.
        """
        begin = self._clock()
        await trio.lowlevel.cancel_shielded_checkpoint()
        if handled:
            took = self._clock() - begin
            self._each += _WEIGHT * (took / handled - self._each)
            self._calm += 1
            calm = self._calm > CALM
            self.many = MOST if calm else max(1, min(MOST, int(BUDGET / self._each)))
