"""The figures of several hubs as those of one: numbers add up, distributions are merged, rates are made of sums.

A percentile is never made of percentiles, nor a rate of rates: each hub gives its histograms, and what is to be
divided, as a *share* (`share`), which is plain values and goes over any wire. What can't be added is told as it is
where it is worst: an alert fires where it fires anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..core.histogram import Histogram
from .durability import STATES

if TYPE_CHECKING:
    from .hub import Hub

LIMITS: Final = ("max_connections", "max_events", "max_bytes", "max_events_per_user")
"""What a share tells of a hub's limits."""

OF_ALL: Final = ("max_connections", "max_events", "max_bytes")
"""Those of them that each hub has for itself: several have the sum."""

# Of each percentile and mean, the group and the name that it has, and the histogram that it is of.
_PERCENTILES: Final = (
    ("delivery", "confirmation_p50", "confirmation", 0.5),
    ("delivery", "confirmation_p95", "confirmation", 0.95),
    ("delivery", "confirmation_p99", "confirmation", 0.99),
    ("recovery", "p50", "recovery", 0.5),
    ("recovery", "p95", "recovery", 0.95),
    ("recovery", "p99", "recovery", 0.99),
    ("serialization", "p99", "serialization", 0.99),
    ("store", "commit_p50", "commit", 0.5),
    ("store", "commit_p99", "commit", 0.99),
    ("cluster", "bus_delay_p50", "bus_delay", 0.5),
    ("cluster", "bus_delay_p99", "bus_delay", 0.99),
)

# What the hubs of a store tell of that one store: it is not there several times.
_SHARED: Final = frozenset(("quarantined", "bytes", "wal_bytes"))

_WORST: Final[dict[str, Callable[[list[float]], float]]] = {
    "slow_response": max,
    "slow_recovery": max,
    "critical_loss": sum,
    "low_confirmation": min,
}
"""Of an alert's values, the one that is told of all; of an alert that only a newer node knows, the largest."""


def share(hub: Hub) -> dict[str, Any]:
    """What `merged` needs of a hub, as plain values."""
    engine = hub.engine
    histograms = {
        "confirmation": engine.confirmations.latency,
        "recovery": engine.recovery,
        "serialization": hub.intake.seconds,
    }
    if engine.durability is not None:
        histograms["commit"] = engine.durability.seconds
    if hub.cluster is not None:
        histograms["bus_delay"] = hub.cluster.bus_delay
    return {
        "stats": hub.stats(),
        "limits": {name: getattr(hub.config, name) for name in LIMITS},
        "histograms": {name: histogram.as_json() for name, histogram in histograms.items()},
    }


def merged(shares: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all hubs whose shares these are, one at least, as `Hub.stats` has those of one."""
    every = [share["stats"] for share in shares]
    stats: dict[str, Any] = _sum(every)
    histograms = merged_histograms(shares)
    stats["uptime"] = max(each["uptime"] for each in every)
    stats["pool"]["utilization"] = stats["connections"]["current"] / merged_limits(shares)["max_connections"]
    delivery, recovery = stats["delivery"], stats["recovery"]
    in_time = delivery["messages_confirmed"] - delivery["messages_late"]
    ended = in_time + delivery["messages_timeout"]
    delivery["confirmation_rate"] = in_time / ended if ended else 1.0
    delivery["average_confirmation_time"] = histograms["confirmation"].mean
    recovery["within_5s"] = histograms["recovery"].share_within(5.0)
    for group, name, of, part in _PERCENTILES:
        if name in stats.get(group, ()):
            stats[group][name] = histograms[of].percentile(part)
    stats["store"] |= _store([each["store"] for each in every])
    if "cluster" in stats:
        clusters = [each["cluster"] for each in every]
        stats["cluster"]["nodes"] = max(cluster["nodes"] for cluster in clusters)
        stats["cluster"]["suspended"] = any(cluster["suspended"] for cluster in clusters)
    alerts: dict[str, list[dict[str, Any]]] = {}
    for alert in (alert for each in every for alert in each["alerts"]):
        alerts.setdefault(alert["name"], []).append(alert)
    stats["alerts"] = [_alert(of_one_rule) for of_one_rule in alerts.values()]
    return stats


def merged_histograms(shares: Sequence[dict[str, Any]]) -> dict[str, Histogram]:
    """All durations of several hubs, by what they are of."""
    histograms: dict[str, Histogram] = {}
    for each in shares:
        for name, plain in each["histograms"].items():
            histograms.setdefault(name, Histogram()).add(Histogram.of_json(plain))
    return histograms


def merged_limits(shares: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The limits of several hubs together."""
    every = [share["limits"] for share in shares]
    return {name: (sum if name in OF_ALL else max)(each[name] for each in every) for name in LIMITS}


def _sum(values: Sequence[Any]) -> Any:
    """Numbers added up, in objects name by name; of flags whether all are set, of all else the first."""
    first = values[0]
    if isinstance(first, dict):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _sum([value[name] for value in values if name in value]) for name in names}
    if isinstance(first, bool):
        return all(values)
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if numbers else first


def _store(stores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What of the store is no sum."""
    told: dict[str, Any] = {
        name: max(store[name] for store in stores if name in store)
        for name in _SHARED
        if any(name in store for store in stores)
    }
    if "state" in stores[0]:
        told["state"] = max((store["state"] for store in stores), key=_severity)
        told["error"] = next((store["error"] for store in stores if store["error"] is not None), None)
    return told


def _severity(state: str) -> int:
    """How bad a store's state is; one that only a newer node knows is the worst."""
    return STATES.index(state) if state in STATES else len(STATES)


def _alert(alerts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One rule over all hubs: it fires where it fires anywhere; its words are those of the hub where it is worst."""
    firing = [alert for alert in alerts if alert["state"] == "firing"]
    values = [alert["value"] for alert in alerts if alert["value"] is not None]
    value = _WORST.get(alerts[0]["name"], max)(values) if values else None
    worst = [alert for alert in firing or alerts if alert["value"] == value] or firing or alerts
    return {
        **worst[0],
        "value": value,
        "state": "firing" if firing else "ok",
        "since": min((alert["since"] for alert in firing), default=None),
    }
