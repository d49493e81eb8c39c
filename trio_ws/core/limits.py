"""Rate limits: how often something may happen, with bursts; one bucket, or one for each of many keys.

A token bucket, kept in one number (the generic cell rate algorithm, ITU-T I.371): the time at which the
bucket will be full again. It needs no timer and no refilling, and can neither overflow nor go below zero.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

MAX_USERS: Final = 10_000
"""For how many users rates are remembered."""

_SLACK: Final = 1e-7
"""Seconds forgiven in a comparison: who waits for just `wait()` must not fail by a rounding error."""


class _Rule:
    """`rate` tokens a second, at most `burst` of them saved up."""

    __slots__ = ("burst", "interval", "span")

    def __init__(self, rate: float, burst: float) -> None:
        if not (0 < rate < math.inf and 1 <= burst < math.inf):
            raise ValueError(f"rate must be above 0 and burst at least 1, not {rate!r} and {burst!r}")
        self.burst = burst
        self.interval = 1 / rate
        self.span = burst / rate

    def take(self, full_at: float, now: float, n: float) -> float | None:
        """When the bucket will be full again once `n` tokens are taken; None if they are not there."""
        after = max(full_at, now) + n * self.interval
        return after if after - now <= self.span + _SLACK else None

    def wait(self, full_at: float, now: float, n: float) -> float:
        return max(0.0, max(full_at, now) + n * self.interval - self.span - now)


class TokenBucket:
    """One bucket, full at first.

    Args:
      rate: tokens a second; above 0.
      burst: how many it holds; at least 1.

    Times are seconds on any clock that never runs back; should it, the bucket just fills later.
    """

    __slots__ = ("_full_at", "_rule")

    def __init__(self, rate: float, burst: float) -> None:
        self._rule = _Rule(rate, burst)
        self._full_at = -math.inf

    def take(self, now: float, n: float = 1) -> bool:
        """Take `n` tokens if they are there, else none. More than `burst` never are."""
        full_at = self._rule.take(self._full_at, now, n)
        if full_at is None:
            return False
        self._full_at = full_at
        return True

    def spend(self, now: float, n: float) -> float:
        """Take `n` tokens, also where they are not there: what has happened can't be refused any more.

        Returns: in how many seconds what is owed will be there again; 0 if nothing is owed.
        """
        self._full_at = max(self._full_at, now) + n * self._rule.interval
        return max(0.0, self._full_at - now - self._rule.span)

    def wait(self, now: float, n: float = 1) -> float:
        """In how many seconds `n` tokens (at most `burst`) will be there; 0 if they are."""
        return self._rule.wait(self._full_at, now, n)

    def level(self, now: float) -> float:
        """How many tokens are there, from 0 to `burst`."""
        missing = max(0.0, self._full_at - now) / self._rule.interval
        return max(0.0, self._rule.burst - missing)


def spread(seconds: float, n: int) -> float:
    """`seconds`, shortened by up to a third, another share for each `n`: who is refused together comes back apart.

    The shares of consecutive `n` lie evenly, without any chance (multiples of the golden ratio).
    """
    return round(seconds * (1 - (n * 0.618_033_988_75 % 1) / 3), 3)


K = TypeVar("K", bound=Hashable)


class KeyedBuckets(Generic[K]):
    """A bucket for each key: an address, a user.

    Args:
      rate: tokens a second for each key; above 0.
      burst: how many a bucket holds; at least 1.
      max_keys: how many keys are remembered. Beyond that the one that was idle for longest is forgotten,
        which gives it a full bucket: a flood of keys must neither take memory nor lock out a key that is new.

    Each call costs O(1), amortised. A full bucket is as good as none, and is let go in passing.
    """

    def __init__(self, rate: float, burst: float, max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys!r}")
        self._rule = _Rule(rate, burst)
        self._max_keys = max_keys
        self._full_at: dict[K, float] = {}  # the key that was idle for longest is the first

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def take(self, key: K, now: float, n: float = 1) -> bool:
        """Take `n` tokens of `key`'s bucket if they are there, else none. A refusal is no idling either."""
        before = self._full_at.pop(key, -math.inf)
        after = self._rule.take(before, now, n)
        self.forget_idle(now)
        if after is not None or before > now:
            if len(self._full_at) >= self._max_keys:
                del self._full_at[next(iter(self._full_at))]
            self._full_at[key] = before if after is None else after
        return after is not None

    def wait(self, key: K, now: float, n: float = 1) -> float:
        """In how many seconds `n` tokens (at most `burst`) will be in `key`'s bucket; 0 if they are."""
        return self._rule.wait(self._full_at.get(key, -math.inf), now, n)

    def forget_idle(self, now: float) -> int:
        """Forget the longest idle keys as far as their buckets are full again; says how many it were."""
        forgotten = 0
        while self._full_at:
            key = next(iter(self._full_at))
            if self._full_at[key] > now:
                break
            del self._full_at[key]
            forgotten += 1
        return forgotten
