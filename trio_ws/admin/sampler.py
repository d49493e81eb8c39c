"""The hub's figures once a second: encoded once for all who watch, and kept for a quarter of an hour.

What is kept are rows of numbers, each as the JSON that it will be sent as: some 130 bytes a second, 120 KB in all.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import msgspec
import trio

from .. import __version__
from ..core.histogram import Histogram
from ..hub import Hub
from ..hub.merging import LIMITS

logger = logging.getLogger(__name__)

STEP: Final = 1.0
"""Seconds from one sample to the next."""

KEPT: Final = 900
"""Rows of the history: a quarter of an hour."""

WINDOW: Final = 60
"""Samples over which percentiles and the confirmation rate of a row are taken: the last minute."""

BACKLOG: Final = 16
"""Samples by which a watcher may be behind; a connection that takes nothing is cut before."""

BOUNDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 30.0)
"""Seconds: the upper ends of the classes that distributions have; what lies above is in a last one."""

GAUGES: Final = {
    "connections": ("connections", "current"),
    "parked": ("sessions", "parked"),
    "held": ("delivery", "events_held"),
    "events": ("buffer", "events"),
    "bytes": ("buffer", "bytes"),
    "waiting": ("buffer", "publishers_waiting"),
}
"""Columns that hold a figure as it is, and where `/v1/stats` has it."""

COUNTERS: Final = {
    "accepted": ("delivery", "events_accepted"),
    "sent": ("delivery", "events_sent"),
    "confirmed": ("delivery", "messages_confirmed"),
    "timed_out": ("delivery", "messages_timeout"),
    "redelivered": ("delivery", "redelivered"),
    "evicted": ("delivery", "events_evicted"),
    "superseded": ("delivery", "events_superseded"),
    "expired": ("delivery", "events_expired"),
    "refused": ("delivery", "events_refused"),
    "merged": ("buffer", "merged"),
    "recovered": ("recovery", "count"),
    "slow": ("serialization", "slow"),
}
"""Columns that hold by how much a counter has grown since the row before."""

RECENT: Final = ("p50", "p95", "p99", "rate")
"""Columns of the last minute's confirmations: how long they took, and the part that came in time. Null without any."""

COLUMNS: Final = ("at", *GAUGES, *COUNTERS, *RECENT)


@attrs.frozen
class Sample:
    """One second, as server-sent events.

    Attributes:
      stats: the figures, as `/v1/stats` has them, and `at`.
      point: the same second's row, and the distributions by now.
    """

    stats: bytes
    point: bytes


@attrs.frozen
class Reading:
    """What there is to tell at one time.

    Attributes:
      stats: as `/v1/stats` has them.
      counted: the columns of `COUNTERS`; they only grow.
      latency: how long confirmations took; in_time, timed_out: how many came so, and did not. They only grow, too.
      confirmation, recovery: all durations, since the start.
      limits: those that figures are compared with.
    """

    stats: dict[str, Any]
    counted: dict[str, int]
    latency: Histogram
    in_time: int
    timed_out: int
    confirmation: Histogram
    recovery: Histogram
    limits: dict[str, int]


class Series:
    """One reading after the other, ready to be sent; `opening` and `following` are for those who watch.

    Attributes:
      watched: how many do.
      watched_at: when somebody did for the last time, in seconds on Trio's clock.
    """

    def __init__(self) -> None:
        self.watched = 0
        self.watched_at = -math.inf
        self._number = 0
        self._samples: deque[Sample] = deque(maxlen=BACKLOG)
        self._rows: deque[bytes] = deque(maxlen=KEPT)
        self._counted: dict[str, int] | None = None
        self._minute: deque[Reading] = deque(maxlen=WINDOW + 1)
        self._limits: dict[str, int] = {}
        self._distributions = b"null"
        self._watchers = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def watched_by_one(self) -> AsyncIterator[None]:
        """While the block runs, somebody watches. A checkpoint where there is no sample yet."""
        self.watched += 1
        try:
            await self._ready()
            yield
        finally:
            self.watched -= 1
            self.watched_at = trio.current_time()

    async def _ready(self) -> None:
        """Wait until there is something to see."""

    def take(self, reading: Reading, at: float) -> None:
        """One more sample, of this time in Unix time; wakes those who watch."""
        stats = {**reading.stats, "at": round(at, 3)}
        row = msgspec.json.encode(list(self._row(stats, reading)))
        distributions = {
            "confirmation": distribution(reading.confirmation),
            "recovery": distribution(reading.recovery),
        }
        self._limits, self._distributions = reading.limits, msgspec.json.encode(distributions)
        self._rows.append(row)
        self._samples.append(
            Sample(
                stats=server_sent(msgspec.json.encode(stats)),
                point=server_sent(b'{"row":%b,"distributions":%b}' % (row, self._distributions), "point"),
            )
        )
        self._number += 1
        self._watchers.unpark_all()

    def opening(self, *, history: bool) -> tuple[int, bytes]:
        """What somebody who begins to watch is sent at once: the history, if asked for, and the last sample.

        Returns: the place from which `following` goes on, and the events.
        """
        newest = self._samples[-1].stats if self._samples else b""
        return self._number, (self._history() if history else b"") + newest

    async def following(self, place: int, *, points: bool) -> tuple[int, bytes]:
        """What has come since `place`; waits where nothing has. Cancelled, nothing is lost: ask again.

        Args:
          place: what `opening` or the last call returned.
          points: whether the rows are wanted too.
        """
        while place == self._number:
            await self._watchers.park()
        missed = list(self._samples)[place - self._number :]
        return self._number, b"".join(s.point + s.stats if points else s.stats for s in missed)

    def _row(self, stats: dict[str, Any], reading: Reading) -> Iterator[float | None]:
        yield stats["at"]
        for group, name in GAUGES.values():
            yield stats[group][name]
        before = self._counted or reading.counted
        yield from (reading.counted[column] - before[column] for column in COUNTERS)
        self._counted = reading.counted
        yield from self._last_minute(reading)

    def _last_minute(self, now: Reading) -> Iterator[float | None]:
        self._minute.append(now)
        then = self._minute[0]
        latency = now.latency.since(then.latency)
        in_time, timed_out = now.in_time - then.in_time, now.timed_out - then.timed_out
        for share in (0.5, 0.95, 0.99):
            yield float(f"{latency.percentile(share):.3g}") if latency.count else None
        yield round(in_time / (in_time + timed_out), 5) if in_time + timed_out else None

    def _history(self) -> bytes:
        about = msgspec.json.encode(
            {
                "version": __version__,
                "step": STEP,
                "window": WINDOW * STEP,
                "columns": COLUMNS,
                "counters": list(COUNTERS),
                "bounds": BOUNDS,
                "limits": self._limits,
            }
        )
        rows = b",".join(self._rows)
        return server_sent(
            b'%b,"distributions":%b,"rows":[%b]}' % (about[:-1], self._distributions, rows), "history"
        )


class Sampler(Series):
    """Samples `hub` while `run` runs."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    async def run(self) -> None:
        """Take a sample each `STEP` until cancelled; those that a busy process misses are left out."""
        due = trio.current_time()
        while True:
            try:
                self.sample()
            except Exception:
                logger.exception("the figures could not be sampled")  # the server goes on without
            due = max(due + STEP, trio.current_time())
            await trio.sleep_until(due)

    def sample(self) -> None:
        """Take one sample."""
        engine, stats = self._hub.engine, self._hub.stats()
        confirmations = engine.confirmations
        latency = confirmations.latency.copy()
        reading = Reading(
            stats=stats,
            counted=counted(stats),
            latency=latency,
            in_time=confirmations.confirmed - confirmations.late,
            timed_out=confirmations.timed_out,
            confirmation=latency,
            recovery=engine.recovery,
            limits={name: getattr(self._hub.config, name) for name in LIMITS},
        )
        self.take(reading, engine.wall_clock())


def counted(stats: dict[str, Any]) -> dict[str, int]:
    """The columns of `COUNTERS`, out of the figures."""
    return {column: stats[group][name] for column, (group, name) in COUNTERS.items()}


def distribution(histogram: Histogram) -> list[int]:
    """How many durations lie in each class of `BOUNDS`, and above the last."""
    upto = histogram.cumulative(BOUNDS)
    return [after - before for before, after in zip([0, *upto], [*upto, histogram.count], strict=True)]


def server_sent(data: bytes, event: str | None = None) -> bytes:
    """One server-sent event, whose `data` is one line."""
    name = b"" if event is None else b"event: %b\n" % event.encode()
    return b"%bdata: %b\n\n" % (name, data)
