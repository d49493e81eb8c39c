"""When a client tries again: the schedule of docs/protocol.md, "Reconnecting".

Quick at first, for the cut that is over in a moment; then with full jitter, so that the clients of a server
that was away do not come back in step (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture
Blog, 2015).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the core makes no randomness: it is given a generator
    import random

FIRST_DELAYS: Final = (0.1, 0.5, 1.0)
"""Seconds before the first attempts, each give or take `JITTER` of it."""

JITTER: Final = 0.05
LOW_CAP: Final = 2.0
HIGH_CAP: Final = 20.0
"""After the first attempts a delay is anything from 0 to a cap in seconds, which doubles from low to high."""

STABLE_AFTER: Final = 5.0
"""Seconds that a connection must last before attempt 1 starts over."""

LONGEST: Final = 3600.0
"""The longest delay, in seconds, that a server can ask for."""


class Backoff:
    """The delays between the attempts of one client; `now` is read from any clock that never runs back.

    Args:
      rng: where the jitter comes from.

    Attributes:
      attempt: how many delays were given since attempt 1 last started over.
    """

    def __init__(self, rng: random.Random) -> None:
        self.attempt = 0
        self._rng = rng
        self._connected_at: float | None = None
        self._replacement: float | None = None

    def next_delay(self) -> float:
        """How many seconds to wait before the next attempt; each call is one attempt."""
        attempt, self.attempt = self.attempt, self.attempt + 1
        if self._replacement is not None:
            delay, self._replacement = self._replacement, None
            return delay
        if attempt < len(FIRST_DELAYS):
            return FIRST_DELAYS[attempt] * self._rng.uniform(1 - JITTER, 1 + JITTER)
        doublings = min(attempt - len(FIRST_DELAYS), 16)  # bounded: 2.0**1024 overflows
        return self._rng.uniform(0, min(HIGH_CAP, LOW_CAP * 2**doublings))

    def connected(self, now: float) -> None:
        """A connection stands: the server has welcomed the client."""
        self._connected_at = now
        self._replacement = None

    def lost(self, now: float) -> None:
        """The connection is gone: attempt 1 starts over if it was stable. Nothing if there was none."""
        if self._connected_at is not None and now - self._connected_at >= STABLE_AFTER:
            self.attempt = 0
        self._connected_at = None

    def replace(self, low: float, high: float | None = None) -> None:
        """The server's word: the next delay is `low` seconds, or a random time from `low` to `high`.

        It takes the place of one delay, and is forgotten once a connection stands. What is negative or no
        number is not taken, and what is above `LONGEST` is cut to it: a server must not be able to switch
        its clients off.
        """
        high = low if high is None else high
        if math.isnan(low) or math.isnan(high) or low < 0 or high < low:
            return
        self._replacement = self._rng.uniform(min(low, LONGEST), min(high, LONGEST))
