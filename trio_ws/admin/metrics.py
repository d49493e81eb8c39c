"""`/metrics`: the figures of one hub for Prometheus, read out of plain integers when it is scraped.

A collector of its own in a registry of its own: nothing is global, and what is counted costs nothing more for it.
Labels have small fixed sets of values; no user, session or event is ever one. docs/metrics.md has all of it as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from .. import COMPILED, __version__
from ..core.entry import CLASS_HIGH, CLASS_LOW, CLASS_NORMAL
from ..core.histogram import Histogram
from ..hub import Hub
from ..hub.durability import STATES, Durability
from ..hub.elsewhere import Cluster
from ..hub.runs import OUTCOMES
from .cluster import AllNodes
from .requests import wants_cluster

LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
"""Bounds in seconds of what should take milliseconds; the alert's threshold is one of them."""

RECOVERY: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0, 180.0)
"""Bounds of recoveries; 4 s is the alert's, 5 s the promise."""

SERIALIZATION: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds of slow encodings, which end at `serialize_timeout`."""

CLASSES: Final = {"low": CLASS_LOW, "normal": CLASS_NORMAL, "high": CLASS_HIGH}

# Name, help, where `Hub.stats` has it.
_COUNTERS: Final = (
    ("connections_opened", "WebSocket connections that got a session.", "connections", "total"),
    ("connections_rejected", "Connections refused at a limit.", "connections", "rejected"),
    ("connections_superseded", "Connections that made way for another one.", "connections", "superseded"),
    ("connections_held_back", "Times that one was not read for a while.", "connections", "held_back"),
    ("client_mistakes", "Frames from clients that made no sense.", "connections", "mistakes"),
    ("pool_sessions_created", "New sessions.", "pool", "pools_created"),
    ("pool_hits", "Connections that went on with a session they had.", "pool", "pool_hits"),
    ("pool_misses", "Connections that asked for a session that was gone.", "pool", "pool_misses"),
    ("pool_connections_reused", "Connections that took up a parked session.", "pool", "connections_reused"),
    ("events_accepted", "Events accepted.", "delivery", "events_accepted"),
    ("events_settled", "Events confirmed and owed to no session.", "delivery", "events_settled"),
    ("events_expired", "Events whose time passed unconfirmed.", "delivery", "events_expired"),
    (
        "events_superseded",
        "Events whose place a later one of their key took.",
        "delivery",
        "events_superseded",
    ),
    ("events_moved", "Events held until their log became another node's.", "delivery", "events_moved"),
    (
        "events_refused",
        "Events refused because the buffer was full of critical ones.",
        "delivery",
        "events_refused",
    ),
    ("events_duplicate", "Events published again under a known id.", "delivery", "events_duplicate"),
    ("events_sent", "First sendings, one a session.", "delivery", "events_sent"),
    ("events_redelivered", "Sendings again, on schedule or after a reconnect.", "delivery", "redelivered"),
    ("events_merged", "Deltas joined into a later one.", "buffer", "merged"),
    (
        "confirmation_timeouts",
        "Tracked events unconfirmed at confirm_timeout.",
        "delivery",
        "messages_timeout",
    ),
    ("dead_letters", "Critical events that expired unconfirmed.", "delivery", "dead_letters"),
    ("buffer_overflows", "Times that room cost an event that had not settled.", "buffer", "overflow_events"),
    (
        "buffer_critical_preserved",
        "Overflows in which critical events of that user were kept.",
        "buffer",
        "critical_messages_preserved",
    ),
    ("payload_timeouts", "Payloads given up after serialize_timeout.", "serialization", "timeouts"),
    ("runs_opened", "Runs of agents that were opened.", "runs", "opened"),
    ("runs_illegal_events", "Events refused since their run had no place for them.", "runs", "illegal"),
    ("questions_answered", "Questions that users answered.", "runs", "questions_answered"),
    ("payloads_truncated", "Payloads cut to max_event_bytes.", "serialization", "truncated"),
)
_GAUGES: Final = (
    ("connections", "WebSocket connections now.", "connections", "current"),
    ("events_held", "Events accepted, and neither settled nor gone.", "delivery", "events_held"),
    ("buffer_bytes", "Bytes of all logs, history included.", "buffer", "bytes"),
    ("runs_open", "Runs of agents that have not ended.", "runs", "open"),
    ("questions_open", "Questions that wait for an answer.", "runs", "questions_open"),
    ("publishers_waiting", "Publishers that wait for room.", "buffer", "publishers_waiting"),
)

# Of a node, the same of its part in the cluster.
_CLUSTER_COUNTERS: Final = (
    ("claims", "Logs that nobody owned, and this node has owned since.", "claims"),
    ("take_overs", "Logs that a dead node had, and this one has taken over.", "take_overs"),
    ("hand_overs", "Logs that were given to a node that had asked for them.", "handed_over"),
    ("releases", "Logs that are nobody's again.", "released"),
    ("fenced", "Logs that were another node's when this one still believed it had them.", "fenced"),
    ("events_forwarded", "Events published here to users whose log another node has.", "forwarded"),
    (
        "calls_forwarded",
        "Calls of the API that another node has answered, batches in groups.",
        "calls_forwarded",
    ),
    ("relays_cut", "Streams between nodes that had a hole, and whose connections were cut.", "relays_cut"),
    ("calls", "Calls to other nodes.", "calls"),
    ("calls_repeated", "Calls that were asked again, as nothing was heard.", "calls_repeated"),
    ("messages_lost", "Messages to other nodes that are known to be lost.", "lost_messages"),
    ("beats", "Times that the lease was renewed.", "beats"),
    ("suspensions", "Times that the lease could not be renewed in time.", "suspensions"),
)
_CLUSTER_GAUGES: Final = (
    ("nodes", "Nodes that live.", "nodes"),
    ("users_owned", "Users whose log this node has.", "owned"),
    ("connections_relayed", "Connections here whose user's log another node has.", "relayed"),
    ("suspended", "Whether it accepts nothing, until its lease is renewed.", "suspended"),
)


class HubCollector(Collector):
    """Reads the figures of `hub` when it is asked to."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering reads no figures."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they stand now."""
        stats = self._hub.stats()
        for name, text, group, key in _COUNTERS:
            yield _counter(name, text, [((), stats[group][key])])
        for name, text, group, key in _GAUGES:
            yield _gauge(name, text, [((), stats[group][key])])
        yield from self._by_label(stats)
        yield from self._limits()
        yield from self._durations()
        if self._hub.engine.durability is not None:
            yield from self._store(self._hub.engine.durability, stats["store"])
        if self._hub.cluster is not None:
            yield from self._cluster(self._hub.cluster, stats["cluster"])

    def _by_label(self, stats: dict[str, Any]) -> Iterator[Metric]:
        engine, delivery = self._hub.engine, stats["delivery"]
        closes = [((str(code or "other"), by), n) for (code, by), n in sorted(engine.closes.items())]
        yield _counter(
            "connections_closed", "WebSockets that ended, by code and by whom.", closes, "code", "by"
        )
        refused = [((reason,), n) for reason, n in engine.refusals.counts.items()]
        yield _counter("refusals", "Connections that were not let in, by reason.", refused, "reason")
        sessions = [((state,), n) for state, n in stats["sessions"].items()]
        yield _gauge("sessions", "Sessions: with a connection, or parked.", sessions, "state")
        evicted = [((name,), engine.books.evicted_of[cls]) for name, cls in CLASSES.items()]
        yield _counter(
            "events_evicted", "Events that made room, by priority; never critical.", evicted, "class"
        )
        late = delivery["messages_late"]
        confirmed = [(("in_time",), delivery["messages_confirmed"] - late), (("late",), late)]
        yield _counter("confirmations", "Tracked events that a client processed.", confirmed, "outcome")
        books = engine.books
        other = books.events - books.history - books.firm_events
        held = [(("settled",), books.history), (("critical",), books.firm_events), (("other",), other)]
        yield _gauge("buffer_events", "Events in all logs: history, firm, and what can go.", held, "class")
        paths = [((path,), stats["serialization"][path]) for path in ("fast", "slow")]
        yield _counter("payloads", "Payloads encoded, without and with a detour.", paths, "path")
        messages = [((outcome,), stats["messages"][outcome]) for outcome in ("accepted", "rejected")]
        yield _counter("messages", "Messages of users to the application.", messages, "outcome")
        ended = [((outcome,), stats["runs"][outcome]) for outcome in (*OUTCOMES, "lost")]
        yield _counter(
            "runs_ended", "Runs of agents that ended; lost: their publisher is gone.", ended, "outcome"
        )
        lost = [((), books.critical_lost)]
        yield _counter("critical_events_lost", "Critical events that went unconfirmed: should be 0.", lost)
        spilled = [((), books.ever_spilled)]
        yield _counter("events_spilled", "Events for which only the store had room.", spilled)
        yield _gauge("events_stored", "Those that still wait there.", [((), books.spilled)])
        firing = [((alert.name,), float(alert.state == "firing")) for alert in engine.alerts.all()]
        yield _gauge("alert_firing", "Whether a rule of the server fires.", firing, "alert")

    def _limits(self) -> Iterator[Metric]:
        engine, config = self._hub.engine, self._hub.config
        build = [((__version__, str(COMPILED).lower()), 1)]
        yield _gauge("build_info", "What runs; the value is 1.", build, "version", "compiled")
        started = [((), engine.unix(engine.started_at))]
        yield _gauge("start_time_seconds", "When the hub began, in Unix time.", started)
        yield _gauge("draining", "Whether it is going away.", [((), float(engine.draining))])
        users = [(("memory",), len(engine.buffer.mailboxes)), (("store",), len(engine.buffer.asleep))]
        yield _gauge("users", "Users whose log is in memory, or in the store only.", users, "place")
        yield _gauge("connections_limit", "max_connections.", [((), config.max_connections)])
        yield _gauge("buffer_events_limit", "max_events.", [((), config.max_events)])
        yield _gauge("buffer_bytes_limit", "max_bytes.", [((), config.max_bytes)])

    def _durations(self) -> Iterator[Metric]:
        engine = self._hub.engine
        confirmations = engine.confirmations
        yield _histogram(
            "confirmation", "From first sending to confirmation.", confirmations.latency, LATENCY
        )
        yield _histogram("response", "From acceptance to confirmation.", confirmations.response, LATENCY)
        yield _histogram(
            "recovery", "From a cut to the last missed event processed.", engine.recovery, RECOVERY
        )
        seconds = self._hub.intake.seconds
        yield _histogram("slow_serialization", "Encodings in a worker thread.", seconds, SERIALIZATION)

    def _store(self, durability: Durability, stats: dict[str, Any]) -> Iterator[Metric]:
        states = [((state,), float(state == stats["state"])) for state in STATES]
        yield _gauge("store_state", "Whether commits go through: 1 for the state it is in.", states, "state")
        yield _counter("store_commits", "Commits that went through.", [((), stats["commits"])])
        yield _counter("store_commit_errors", "Tries to commit that failed.", [((), stats["errors"])])
        yield _counter("store_events_written", "Events committed.", [((), stats["events_written"])])
        yield _gauge("store_pending", "Logs with changes not drawn up yet.", [((), stats["pending"])])
        yield _gauge(
            "store_quarantined", "Damaged rows that lie aside: should be 0.", [((), stats["quarantined"])]
        )
        asleep = stats["events_asleep"] + (stats["events_unread"] or 0)
        yield _gauge(
            "store_events_asleep", "Unconfirmed events of users whose log is not in memory.", [((), asleep)]
        )
        if "bytes" in stats:
            wal = stats["wal_bytes"]
            files = [(("database",), stats["bytes"] - wal), (("wal",), wal)]
            yield _gauge("store_bytes", "Size of the file, and of its write-ahead log.", files, "file")
        yield _histogram("store_commit", "Commits, tries that failed included.", durability.seconds, LATENCY)

    def _cluster(self, cluster: Cluster, stats: dict[str, Any]) -> Iterator[Metric]:
        for name, text, key in _CLUSTER_COUNTERS:
            yield _counter(f"cluster_{name}", text, [((), stats[key])])
        for name, text, key in _CLUSTER_GAUGES:
            yield _gauge(f"cluster_{name}", text, [((), float(stats[key]))])
        yield _histogram("cluster_bus_delay", "From node to node, over the bus.", cluster.bus_delay, LATENCY)


class Metrics:
    """The call `GET /metrics`: Prometheus' text, or OpenMetrics for who asks for it; of all `nodes`, where it is one of
    several and that is asked for."""

    def __init__(self, hub: Hub, nodes: AllNodes | None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(HubCollector(hub))
        ProcessCollector(registry=self.registry)
        self._hub = hub
        self._nodes = nodes

    async def scrape(self, request: Request) -> Response:
        """All metrics."""
        accept = request.headers.get("accept", "")
        encode, content_type = choose_encoder(accept)
        if wants_cluster(request, self._hub, "*"):
            assert self._nodes is not None
            content = await self._nodes.metrics(accept)
        else:
            content = encode(self.registry)
        return Response(content, headers={"content-type": content_type, "cache-control": "no-store"})


_Values = Sequence[tuple[tuple[str, ...], float]]


def _counter(name: str, text: str, values: _Values, *labels: str) -> Metric:
    family = CounterMetricFamily(f"trio_ws_{name}", text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _gauge(name: str, text: str, values: _Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"trio_ws_{name}", text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram, bounds: Sequence[float]) -> Metric:
    counts = histogram.cumulative(bounds)
    buckets = [(str(float(bound)), float(count)) for bound, count in zip(bounds, counts, strict=True)]
    buckets.append(("+Inf", float(histogram.count)))
    family = HistogramMetricFamily(f"trio_ws_{name}_seconds", text)
    family.add_metric((), buckets, histogram.total)
    return family
