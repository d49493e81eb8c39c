"""The alerts: four rules over a sliding window, what state each is in, and who is told when that changes.

    slow_response      95 % of the critical events are not processed within `alert_response_time` of their acceptance
    slow_recovery      95 % of the recoveries are not over within `alert_recovery_time`
    critical_loss      a critical event went unconfirmed: one is enough
    low_confirmation   less than `alert_confirmation_rate` of the confirmations came in time

The window slides in `STEPS` steps: a copy of each figure is kept a step, and what lies in the window is what was
recorded since the oldest. So recording costs nothing more, and no sample is kept. A rule fires where there are
`alert_samples` in the window, so that one slow event in an idle hour is no alarm, and where its figure is beyond the
threshold. It is over when the figure is a tenth better than that, or nothing is left in the window: a figure that sways
about its threshold does not flap.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs
import trio

from ..core.histogram import Histogram
from .handover import Handover

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger(__name__)

STEPS: Final = 30
"""In how many steps the window slides."""

MARGIN: Final = 0.1
"""By which part of its threshold a figure has to be better for an alert to be over."""

WAITING: Final = 16
"""How many changes may wait for `on_alert`."""

NAMES: Final = ("slow_response", "slow_recovery", "critical_loss", "low_confirmation")


@attrs.frozen(kw_only=True)
class Alert:
    """The state of one rule.

    Attributes:
      name: ``slow_response``, ``slow_recovery``, ``critical_loss`` or ``low_confirmation``.
      since: since when it fires, in seconds since the Unix epoch; None where it does not.
      value: the figure that it is about, over the window; None where there is none.
      threshold: beyond which it fires.
      unit: of both: ``seconds``, ``events``, or ``ratio`` (0 to 1).
      summary: one sentence that says what is the matter, or what is watched.
    """

    name: str
    state: Literal["ok", "firing"]
    since: float | None
    value: float | None
    threshold: float
    unit: Literal["seconds", "events", "ratio"]
    summary: str


OnAlert: TypeAlias = Callable[[Alert], Awaitable[None]]


@attrs.frozen
class _Sample:
    """The figures at one time."""

    response: Histogram
    recovery: Histogram
    in_time: int
    timed_out: int
    lost: int


@attrs.frozen
class _Reading:
    """One figure over the window.

    Attributes:
      value: None where nothing was recorded.
      enough: there is so much of it that it may fire.
      bad, good: it is beyond the threshold; it is so far from it that all is well again.
    """

    value: float | None
    threshold: float
    unit: Literal["seconds", "events", "ratio"]
    enough: bool
    bad: bool
    good: bool
    summary: str


class Alerts:
    """Watches the figures of a hub.

    Args:
      engine: whose.
      on_alert: is awaited with each alert that begins or ends, one after the other; what it raises is logged.
    """

    def __init__(self, engine: Engine, on_alert: OnAlert | None) -> None:
        self._engine = engine
        self._handover = on_alert and Handover(engine.nursery, on_alert, "on_alert", limit=WAITING)
        self._samples = deque([self._sample()], maxlen=STEPS + 1)
        self._since: dict[str, float] = {}
        self._readings = self._read()

    async def run(self) -> None:
        """Look each step of the window, until cancelled."""
        while True:
            await trio.sleep(self._engine.config.alert_window / STEPS)
            try:
                self.look()
                self._samples.append(self._sample())
            except Exception:
                logger.exception("looking for alerts failed")

    def look(self) -> None:
        """See how each rule stands now; whoever is to be told of a change is. Not a checkpoint."""
        self._readings = self._read()
        for name, reading in self._readings.items():
            if name not in self._since and reading.enough and reading.bad:
                self._since[name] = self._engine.wall_clock()
                log = logger.error if name == "critical_loss" else logger.warning
                log("alert: %s", reading.summary, extra={"alert": name, "state": "firing"})
            elif name in self._since and (reading.good or reading.value is None):
                del self._since[name]
                logger.info("the alert is over: %s", name, extra={"alert": name, "state": "ok"})
            else:
                continue
            if self._handover is not None:
                self._handover.put(self._alert(name))

    def all(self) -> list[Alert]:
        """Every rule as it stood when it was last looked at."""
        return [self._alert(name) for name in NAMES]

    def as_json(self) -> list[dict[str, Any]]:
        """As `all`, in the shape that `/v1/stats` has."""
        return [attrs.asdict(alert) for alert in self.all()]

    def _alert(self, name: str) -> Alert:
        reading = self._readings[name]
        since = self._since.get(name)
        return Alert(
            name=name,
            state="ok" if since is None else "firing",
            since=since,
            value=reading.value,
            threshold=reading.threshold,
            unit=reading.unit,
            summary=reading.summary,
        )

    def _sample(self) -> _Sample:
        confirmations = self._engine.confirmations
        return _Sample(
            confirmations.response.copy(),
            self._engine.recovery.copy(),
            confirmations.confirmed - confirmations.late,
            confirmations.timed_out,
            self._engine.books.critical_lost,
        )

    def _read(self) -> dict[str, _Reading]:
        """All figures over the window."""
        config, then, now = self._engine.config, self._samples[0], self._sample()
        return {
            "slow_response": self._slowness(
                now.response.since(then.response),
                config.alert_response_time,
                "No critical event was processed",
                "95 % of the critical events were processed",
            ),
            "slow_recovery": self._slowness(
                now.recovery.since(then.recovery),
                config.alert_recovery_time,
                "Nobody had to recover from a cut",
                "95 % of the recoveries were over",
            ),
            "critical_loss": self._losses(now.lost - then.lost),
            "low_confirmation": self._rate(now.in_time - then.in_time, now.timed_out - then.timed_out),
        }

    def _slowness(self, recent: Histogram, threshold: float, none: str, most: str) -> _Reading:
        value = recent.percentile(0.95) if recent.count else None
        told = none if value is None else f"{most} within {value:.2f} s"
        return _Reading(
            value,
            threshold,
            "seconds",
            recent.count >= self._engine.config.alert_samples,
            value is not None and value > threshold,
            value is not None and value <= threshold * (1 - MARGIN),
            f"{told} ({threshold:g} s is the limit).",
        )

    def _losses(self, lost: int) -> _Reading:
        events = "No critical event was" if not lost else f"{lost} critical event{'s' * (lost > 1)} went"
        return _Reading(
            lost, 0, "events", True, lost > 0, lost == 0, f"{events} {'lost' if not lost else 'unconfirmed'}."
        )

    def _rate(self, in_time: int, timed_out: int) -> _Reading:
        total, threshold = in_time + timed_out, self._engine.config.alert_confirmation_rate
        value = in_time / total if total else None
        share = (
            "No confirmation was due"
            if value is None
            else f"{100 * value:.1f} % of the confirmations came in time"
        )
        return _Reading(
            value,
            threshold,
            "ratio",
            total >= self._engine.config.alert_samples,
            value is not None and value < threshold,
            value is not None and value >= threshold + MARGIN * (1 - threshold),
            f"{share} ({100 * threshold:g} % is the limit).",
        )
