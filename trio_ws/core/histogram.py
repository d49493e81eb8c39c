"""A histogram of durations in fixed buckets that grow by a tenth: recording is O(1), a percentile is right to 5 %.

The idea is HdrHistogram's: logarithmic buckets, plain counters, no samples kept.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

_LOWEST: Final = 1e-5
_GROWTH: Final = math.log(1.1)
_BUCKETS: Final = 200  # 10 µs * 1.1**200 is about half an hour
_ENDS: Final = [
    _LOWEST * math.exp(at * _GROWTH) for at in range(_BUCKETS)
]  # to look up takes half as long as to compute


class Histogram:
    """Counts durations in seconds.

    Attributes:
      count: how many were recorded.
      total: their sum in seconds.
      maximum: the longest of them.
    """

    __slots__ = ("_counts", "count", "maximum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self._counts: list[int] | None = None

    def record(self, seconds: float) -> None:
        """Count one duration; below 0 counts as 0."""
        counts = self._counts
        if counts is None:
            counts = self._counts = [0] * (_BUCKETS + 1)
        self.count += 1
        if seconds > 0.0:
            self.total += seconds
        if seconds > self.maximum:
            self.maximum = seconds
        counts[bisect_left(_ENDS, seconds)] += 1

    def percentile(self, share: float) -> float:
        """The duration below which `share` (0 to 1) of the recorded lie, in seconds; 0 where there are none."""
        if not self.count or self._counts is None:
            return 0.0
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for at, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_middle(at), self.maximum)
        return self.maximum

    def share_within(self, seconds: float) -> float:
        """The share, 0 to 1, of the recorded that lasted at most `seconds`, to a bucket; 1 where there are none."""
        if not self.count or self._counts is None:
            return 1.0
        upto = 0 if seconds <= _LOWEST else int(math.log(seconds / _LOWEST) / _GROWTH) + 1
        return sum(self._counts[: upto + 1]) / self.count

    def copy(self) -> Histogram:
        """What has been recorded by now."""
        copied = Histogram()
        copied.count, copied.total, copied.maximum = self.count, self.total, self.maximum
        copied._counts = None if self._counts is None else self._counts[:]
        return copied

    def since(self, earlier: Histogram) -> Histogram:
        """What was recorded after `earlier` was copied from this; its `maximum` is that of all."""
        recent = self.copy()
        recent.count -= earlier.count
        recent.total -= earlier.total
        if recent._counts is not None and earlier._counts is not None:
            recent._counts = [now - then for now, then in zip(recent._counts, earlier._counts, strict=True)]
        return recent

    def add(self, other: Histogram) -> None:
        """Count all that `other` has recorded, too."""
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        if other._counts is not None:
            counts = self._counts or [0] * (_BUCKETS + 1)
            self._counts = [ours + theirs for ours, theirs in zip(counts, other._counts, strict=True)]

    def as_json(self) -> list[float | list[int]]:
        """All of it as plain values, for `of_json`; the shorter, the fewer buckets are in use."""
        used = [n for at, count in enumerate(self._counts or ()) if count for n in (at, count)]
        return [self.total, self.maximum, used]

    @classmethod
    def of_json(cls, plain: list[Any]) -> Histogram:
        """What `as_json` gave.

        Raises:
          ValueError: it is nothing that it could have given.
        """
        histogram = cls()
        histogram.total, histogram.maximum, used = plain
        histogram._counts = [0] * (_BUCKETS + 1)
        for at, count in zip(used[::2], used[1::2], strict=True):
            if not 0 <= at <= _BUCKETS:
                raise ValueError(f"there is no bucket {at}")
            histogram._counts[at] = count
            histogram.count += count
        return histogram

    def cumulative(self, bounds: Iterable[float]) -> list[int]:
        """How many lasted at most so long, for each of `bounds`: rising times in seconds; right to a bucket.

        A bucket that a bound lies in is counted where its middle is, as percentiles are.
        """
        if self._counts is None:
            return [0 for _ in bounds]
        upto, at, found = 0, 0, []
        for bound in bounds:
            while at <= _BUCKETS and _middle(at) <= bound:
                upto += self._counts[at]
                at += 1
            found.append(upto)
        return found

    @property
    def mean(self) -> float:
        """The average duration in seconds; 0 where there are none."""
        return self.total / self.count if self.count else 0.0


def _middle(bucket: int) -> float:
    """The duration that what is in a bucket is told as, in seconds."""
    return _LOWEST * math.exp((bucket - 0.5) * _GROWTH) if bucket else _LOWEST
