"""The figures of all nodes together, once a second, for as long as somebody watches them.

Nodes come and go, and one may not answer for a while. So what is counted is added up by what each node's counters have
grown: a node that is missing for a second makes no curve fall, and one that comes back makes none leap.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import attrs
import trio

from ..core.histogram import Histogram
from ..hub import Hub
from ..hub.merging import merged_histograms, merged_limits
from .cluster import AllNodes
from .sampler import COUNTERS, STEP, Reading, Series, counted

logger = logging.getLogger(__name__)

KEPT_FOR: Final = 60.0
"""Seconds that sampling goes on when nobody watches any more, so that a page that is loaded again has its history."""


@attrs.define
class Growth:
    """What the counters of all nodes have grown by since sampling began."""

    counted: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(COUNTERS, 0))
    latency: Histogram = attrs.field(factory=Histogram)
    in_time: int = 0
    timed_out: int = 0
    _before: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def add(self, told: dict[str, dict[str, Any]]) -> None:
        """One more share of each node that has told its own."""
        for node, now in told.items():
            then = self._before.get(node)
            if then is not None:
                self._add(then, now)
            self._before[node] = now

    def keep(self, nodes: set[str]) -> None:
        """Forget nodes but these: others are gone for good."""
        self._before = {node: told for node, told in self._before.items() if node in nodes}

    def _add(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        before, after = counted(then["stats"]), counted(now["stats"])
        self.counted = {column: n + after[column] - before[column] for column, n in self.counted.items()}
        earlier, later = (Histogram.of_json(told["histograms"]["confirmation"]) for told in (then, now))
        self.latency.add(later.since(earlier))
        delivery = [told["stats"]["delivery"] for told in (then, now)]
        timed_out = [each["messages_timeout"] for each in delivery]
        in_time = [each["messages_confirmed"] - each["messages_late"] for each in delivery]
        self.timed_out += timed_out[1] - timed_out[0]
        self.in_time += in_time[1] - in_time[0]


class ClusterSampler(Series):
    """Samples all nodes of the cluster that `hub` is of, while `run` runs and somebody watches."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._nodes = AllNodes(hub)
        self._growth = Growth()
        self._wanted = trio.Event()
        self._first = trio.Event()

    async def _ready(self) -> None:
        self._wanted.set()
        await self._first.wait()

    async def run(self) -> None:
        """Take a sample each `STEP`, until cancelled."""
        while True:
            await self._wanted.wait()
            due = trio.current_time()
            while self.watched or trio.current_time() < self.watched_at + KEPT_FOR:
                try:
                    await self._sample()
                except Exception:
                    logger.exception("the figures of the cluster could not be sampled")
                due = max(due + STEP, trio.current_time())
                await trio.sleep_until(due)
            self._wanted = trio.Event()

    async def _sample(self) -> None:
        shares = await self._nodes.shares()
        told = list(shares.told.values())
        self._growth.add(shares.told)
        self._growth.keep({record.node for record in shares.records})
        histograms = merged_histograms(told)
        reading = Reading(
            stats=shares.stats(),
            counted=self._growth.counted,
            latency=self._growth.latency.copy(),
            in_time=self._growth.in_time,
            timed_out=self._growth.timed_out,
            confirmation=histograms["confirmation"],
            recovery=histograms["recovery"],
            limits=merged_limits(told),
        )
        self.take(reading, self._hub.engine.wall_clock())
        self._first.set()
