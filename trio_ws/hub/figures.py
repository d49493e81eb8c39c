"""The hub's figures, read out of plain counters when somebody asks: names and nesting are those of `/v1/stats`."""

from __future__ import annotations

from typing import Any

import attrs

from ..core.entry import CLASS_HIGH, CLASS_LOW, CLASS_NORMAL, FIRM
from ..core.mailbox import Mailbox
from ..core.session import Session
from .elsewhere import Cluster
from .engine import Engine
from .history import lag, stored
from .inbox import Inbox
from .intake import Intake
from .runs import RunDesk

_PRIORITY = {CLASS_LOW: "low", CLASS_NORMAL: "normal", CLASS_HIGH: "high", FIRM: "critical"}


@attrs.frozen(kw_only=True)
class HubStatistics:
    """A snapshot of a hub. Every accepted event is in exactly one place:
    ``accepted = settled + held + evicted + expired + superseded + moved``. Moved is only what a node of a cluster has
    no more, as another node has the log."""

    connections: int
    sessions_parked: int
    users: int
    events_accepted: int
    events_settled: int
    events_held: int
    events_evicted: int
    events_expired: int
    events_superseded: int
    events_moved: int
    buffer_events: int
    buffer_bytes: int
    publishers_waiting: int
    confirmation_rate: float
    balanced: bool


def statistics(engine: Engine) -> HubStatistics:
    """The snapshot of a hub."""
    books = engine.books
    return HubStatistics(
        connections=engine.pool.sockets,
        sessions_parked=engine.pool.parked,
        users=len(engine.buffer.mailboxes) + len(engine.buffer.asleep),
        events_accepted=books.accepted,
        events_settled=books.settled,
        events_held=books.held,
        events_evicted=books.evicted,
        events_expired=books.expired,
        events_superseded=books.superseded,
        events_moved=books.moved,
        buffer_events=books.events,
        buffer_bytes=books.bytes,
        publishers_waiting=engine.room.waiting,
        confirmation_rate=engine.confirmations.rate,
        balanced=books.balanced,
    )


def stats(engine: Engine, intake: Intake, inbox: Inbox, desk: RunDesk) -> dict[str, Any]:
    """Every figure of a hub: rates are 0 to 1, times in seconds."""
    books, pool, confirmations, recovery = engine.books, engine.pool, engine.confirmations, engine.recovery
    latency = confirmations.latency
    return {
        "uptime": engine.clock() - engine.started_at,
        "draining": engine.draining,
        "users": len(engine.buffer.mailboxes) + len(engine.buffer.asleep),
        "connections": {
            "current": pool.sockets,
            "total": pool.total_connected,
            "rejected": pool.rejected,
            "superseded": pool.superseded,
            "mistakes": engine.mistakes,
            "closed": {
                str(code): sum(n for (c, _), n in engine.closes.items() if c == code)
                for code in sorted({code for code, _ in engine.closes})
            },
            "refused": dict(engine.refusals.counts),
            "held_back": engine.held_back,
        },
        "sessions": {"active": pool.connected, "parked": pool.parked},
        "pool": {
            "pools_created": pool.created,
            "pool_hits": pool.hits,
            "pool_misses": pool.misses,
            "connections_reused": pool.reused,
            "utilization": pool.sockets / engine.config.max_connections,
        },
        "delivery": {
            "events_accepted": books.accepted,
            "events_settled": books.settled,
            "events_held": books.held,
            "events_evicted": books.evicted,
            "events_expired": books.expired,
            "events_superseded": books.superseded,
            "events_moved": books.moved,
            "events_refused": books.refused,
            "events_duplicate": books.duplicates,
            "events_sent": books.sent,
            "redelivered": books.redelivered,
            "messages_confirmed": confirmations.confirmed,
            "messages_timeout": confirmations.timed_out,
            "messages_late": confirmations.late,
            "confirmation_rate": confirmations.rate,
            "average_confirmation_time": latency.mean,
            "confirmation_p50": latency.percentile(0.5),
            "confirmation_p95": latency.percentile(0.95),
            "confirmation_p99": latency.percentile(0.99),
            "dead_letters": books.dead_letters,
        },
        "buffer": {
            "events": books.events,
            "bytes": books.bytes,
            "settled": books.history,
            "critical_messages_preserved": books.critical_preserved,
            "non_critical_messages_dropped": books.evicted,
            "overflow_events": books.overflows,
            "superseded": books.superseded,
            "merged": books.merged,
            "publishers_waiting": engine.room.waiting,
        },
        "runs": desk.stats(),
        "recovery": {
            "count": recovery.count,
            "p50": recovery.percentile(0.5),
            "p95": recovery.percentile(0.95),
            "p99": recovery.percentile(0.99),
            "within_5s": recovery.share_within(5.0),
        },
        "serialization": {
            "fast": intake.fast,
            "slow": intake.slow,
            "timeouts": intake.timeouts,
            "truncated": intake.truncated,
            "p99": intake.seconds.percentile(0.99),
        },
        "store": _store(engine),
        "messages": {
            "accepted": inbox.accepted,
            "rejected": inbox.rejected,
            "rate_limited": inbox.rate_limited,
        },
        "alerts": engine.alerts.as_json(),
    }


def _store(engine: Engine) -> dict[str, Any]:
    durability, asleep = engine.durability, engine.buffer.asleep
    if durability is None:
        return {"kind": "memory"}
    books = engine.books
    return {
        **durability.stats(),
        "users_asleep": len(asleep),
        "events_asleep": books.asleep,
        "events_stored": books.spilled,
        "events_spilled": books.ever_spilled,
        "events_unread": durability.unread,
    }


def of_cluster(cluster: Cluster) -> dict[str, Any]:
    """What a node knows of its cluster, and its own part in it."""
    return {
        "nodes": len(cluster.nodes()),
        "suspended": cluster.suspended,
        **cluster.stats(),
        "bus_delay_p50": cluster.bus_delay.percentile(0.5),
        "bus_delay_p99": cluster.bus_delay.percentile(0.99),
    }


def describe(engine: Engine, box: Mailbox) -> dict[str, Any]:
    """What there is to know of one user."""
    now = engine.clock()
    held = [entry for entry in box.entries.values() if not entry.settled]
    return {
        "user": box.user,
        "epoch": box.epoch,
        "head": box.head,
        "connections": sum(session.link is not None for session in box.sessions.values()),
        "sessions": [_describe_session(box, session, now) for session in box.sessions.values()],
        "buffer": {
            "events": len(box.entries),
            "bytes": box.bytes,
            "held": sum(entry.weight for entry in held) + stored(box),
            "stored": stored(box),
            "settled": len(box.entries) - len(held),
            "critical_unconfirmed": sum(e.retention == FIRM and e.confirmed_at is None for e in held)
            + (0 if box.rest is None else box.rest.events - box.rest.lesser),
            "by_priority": {
                name: sum(e.retention == retention for e in held) for retention, name in _PRIORITY.items()
            },
            "publishers_waiting": engine.room.line(box.user),
        },
        "lag": lag(box, sum(entry.weight for entry in held) + stored(box)),
    }


def _describe_session(box: Mailbox, session: Session, now: float) -> dict[str, Any]:
    connected = session.link is not None
    return {
        "session": session.id,
        "state": "connected" if connected else "parked",
        "plain": session.plain,
        "acked": session.acked,
        "sent": session.cursor,
        "lag": box.head - session.acked,
        "age": now - session.created_at,
        "parked_for": None if connected else now - session.parked_at,
        "blocked": session.blocked is not None,
    }
