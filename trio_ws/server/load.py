"""How far the loop lags behind, and whom that keeps out: with too much to do already, more is not taken on.

It is measured where some were accepted, so that who is here already does not pay for it. One long turn is no overload
(a machine stops now and then); two one after the other are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from ..core.limits import spread

EVERY: Final = 0.05
"""Seconds from one measurement to the next, at least."""

RESUMING: Final = 2.0
"""How many times as far the loop may lag for those who resume: they cost less than new ones, and are missed already."""

LEAST_WAIT: Final = 1.5
MOST_WAIT: Final = 15.0
"""Seconds after which who is kept out is asked to come back: the longer it lasts, the later."""


class Load:
    """What one listener knows of the loop's lag.

    Args:
      max_lag: seconds that the loop may lag behind.
      clock: seconds.
    """

    def __init__(self, max_lag: float, clock: Callable[[], float] = trio.current_time) -> None:
        self._max_lag = max_lag
        self._clock = clock
        self._lag, self._at = 0.0, -math.inf  # as it was measured last, and when
        self._since = -math.inf  # from when on it has been too much
        self._told = 0

    async def measure(self) -> None:
        """See how long the loop takes for a turn, unless that was seen just now; no checkpoint then, else a few."""
        if self._clock() - self._at < EVERY:
            return
        lag = await self._turn()
        if lag > self._max_lag:
            lag = min(lag, await self._turn())
        now = self._clock()
        if not self._too_much() or now - self._at > MOST_WAIT:
            self._since = now
        self._lag, self._at = lag, now

    async def _turn(self) -> float:
        begin = self._clock()
        # Within a turn tasks run in any order: these are between one turn and three, two on average.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        return (self._clock() - begin) / 2

    def keeps_out(self, *, resuming: bool) -> float | None:
        """In how many seconds who asks to come in should ask again; None where he may come in now."""
        if not self._too_much(RESUMING if resuming else 1.0):
            return None
        self._told += 1
        return spread(min(MOST_WAIT, LEAST_WAIT + self._clock() - self._since), self._told)

    def _too_much(self, times: float = 1.0) -> bool:
        # It was measured when he came who asks, so what was seen last is never much older than a handshake.
        return self._lag > self._max_lag * times
