"""The figures: names and nesting of `/v1/stats`, and what they add up to after a day's work."""

from __future__ import annotations

import attrs
import pytest
import trio

from trio_ws.event import Priority
from trio_ws.hub.alerts import NAMES
from trio_ws.hub.figures import HubStatistics

from .peers import running, settled

STATS = {
    "connections": {"current", "total", "rejected", "superseded"},
    "sessions": {"active", "parked"},
    "pool": {"pools_created", "pool_hits", "pool_misses", "connections_reused", "utilization"},
    "delivery": {
        "events_accepted",
        "events_settled",
        "events_held",
        "events_evicted",
        "events_expired",
        "events_superseded",
        "events_refused",
        "events_sent",
        "redelivered",
        "messages_confirmed",
        "messages_timeout",
        "messages_late",
        "confirmation_rate",
        "average_confirmation_time",
        "confirmation_p50",
        "confirmation_p95",
        "confirmation_p99",
        "dead_letters",
    },
    "buffer": {
        "events",
        "bytes",
        "settled",
        "critical_messages_preserved",
        "non_critical_messages_dropped",
        "overflow_events",
        "superseded",
        "merged",
        "publishers_waiting",
    },
    "recovery": {"count", "p50", "p95", "p99", "within_5s"},
    "serialization": {"fast", "slow", "timeouts", "truncated", "p99"},
}


async def test_stats_have_the_missions_names() -> None:
    async with running() as world:
        stats = world.hub.stats()
        for section, names in STATS.items():
            assert names <= set(stats[section])
            assert all(isinstance(stats[section][name], int | float) for name in names)
        assert [alert["name"] for alert in stats["alerts"]] == list(NAMES)


async def test_statistics_are_a_frozen_snapshot() -> None:
    async with running() as world:
        before = world.hub.statistics()
        await world.hub.publish("ada", "token")
        after = world.hub.statistics()
        assert (before.events_accepted, after.events_accepted) == (0, 1)
        assert (after.events_held, after.buffer_events, after.users) == (1, 1, 1)
        assert after.buffer_bytes > 0
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            after.users = 2  # type: ignore[misc]
        assert isinstance(after, HubStatistics)


async def test_a_user_can_be_looked_at() -> None:
    async with running() as world:
        assert world.hub.describe("ada") is None
        peer = world.peer(acks=True).connect()
        world.peer().connect().die()
        await world.hub.publish("ada", "agent_started")
        await world.hub.publish("ada", "token", priority=Priority.LOW)
        await trio.sleep(1)
        seen = world.hub.describe("ada")
        assert seen is not None
        assert (seen["user"], seen["epoch"], seen["head"]) == ("ada", peer.welcome["epoch"], 2)
        assert (seen["connections"], seen["lag"]) == (1, 2)
        connected, parked = seen["sessions"]
        assert (connected["state"], connected["lag"], connected["acked"], connected["sent"]) == (
            "connected",
            0,
            2,
            2,
        )
        assert (parked["state"], parked["lag"], parked["parked_for"]) == ("parked", 2, 1.0)
        buffer = seen["buffer"]
        assert (buffer["held"], buffer["settled"], buffer["critical_unconfirmed"]) == (2, 0, 0)
        assert buffer["by_priority"] == {"low": 1, "normal": 0, "high": 0, "critical": 1}


async def test_the_books_balance_whatever_happens() -> None:
    limits = {"max_events_per_user": 6, "max_events": 14, "cleanup_interval": 5}
    async with running(**limits) as world:
        hub = world.hub
        peers = [world.peer(user, acks=user != "eve").connect() for user in ("ada", "bob", "eve")]
        for step in range(200):
            user = ("ada", "bob", "eve", "away")[step % 4]
            for publish in (
                {"type": "token", "payload": {"text": "x"}, "merge": "append"},
                {"type": "token", "payload": {"text": "y"}, "merge": "append"},
                {"type": "agent_thinking", "ttl": 3.0 if step % 8 < 3 else None},
                {"type": "progress", "key": "bar"},
                {"type": "token", "priority": Priority.LOW, "ttl": 1.0},
            ):
                try:
                    hub.publish_nowait(user, **publish)
                except trio.WouldBlock:
                    pass
                world.check()
            if step % 7 == 0:
                peer = peers[step % 3]
                if peer.attachment is not None and not peer.attachment.fenced:
                    peer.die()
                peers[step % 3] = peer.again() if step % 2 else world.peer(peer.user, acks=True).connect()
            if step % 5 == 0:
                await trio.sleep(0.7)
            await settled()
            world.check()
            figures = hub.statistics()
            assert figures.buffer_events <= 14
        books = hub.engine.books
        assert books.accepted > 400
        assert min(books.settled, books.evicted, books.superseded, books.refused, books.merged) > 0
        assert sum(
            entry.weight for box in hub.engine.buffer.mailboxes.values() for entry in box.entries.values()
        ) == (
            books.held
            + sum(
                e.weight
                for box in hub.engine.buffer.mailboxes.values()
                for e in box.entries.values()
                if e.settled
            )
        )
