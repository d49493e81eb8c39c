"""The figures of several hubs as those of one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import trio

from trio_ws.hub.merging import merged, merged_histograms, merged_limits, share

from .peers import World, running, settled

LATE = 6.0
"""Seconds: beyond `confirm_timeout`."""


def over_a_wire(world: World) -> dict[str, Any]:
    """A hub's share, as another process has it."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(share(world.hub)))
    return found


async def confirm(world: World, delays: list[float]) -> None:
    """Have an event confirmed after each of these seconds."""
    tab = world.peer().connect()
    for delay in delays:
        receipt = await world.hub.publish("ada", "agent_started")
        await settled()
        await trio.sleep(delay)
        tab.ack(receipt.seq)


async def test_several_hubs_have_the_figures_of_one_that_had_it_all() -> None:
    fast, slow = [0.1] * 60, [0.9] * 39 + [LATE]
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(running()) for _ in range(3)]
        for world, delays in zip(worlds, (fast, slow, fast + slow), strict=True):
            await confirm(world, delays)
        parts = [over_a_wire(world) for world in worlds]
        several, one = merged(parts[:2]), merged(parts[2:])
        assert one["delivery"] == pytest.approx(worlds[2].hub.stats()["delivery"])
        assert several["delivery"] == pytest.approx(one["delivery"])
        assert several["delivery"]["confirmation_rate"] == pytest.approx(0.99)
        # What averages of the two hubs' percentiles would not be.
        assert several["delivery"]["confirmation_p50"] == pytest.approx(0.1, rel=0.05)
        assert several["delivery"]["confirmation_p95"] == pytest.approx(0.9, rel=0.05)
        assert several["buffer"]["events"] == one["buffer"]["events"] == 100
        assert several["connections"]["current"] == 2
        assert several["pool"]["utilization"] == 2 / (2 * worlds[0].hub.config.max_connections)
        assert merged_limits(parts[:2])["max_events"] == 2 * worlds[0].hub.config.max_events
        assert merged_limits(parts)["max_events_per_user"] == worlds[0].hub.config.max_events_per_user
        assert merged_histograms(parts[:2])["confirmation"].count == 100


async def test_an_alert_fires_where_it_fires_anywhere_and_tells_the_worst() -> None:
    async with running(alert_samples=5) as good, running(alert_samples=5) as bad:
        await confirm(good, [0.1] * 10)
        await confirm(bad, [3.0] * 10)
        for world in (good, bad):
            world.hub.engine.alerts.look()
        of_bad = next(alert for alert in bad.hub.stats()["alerts"] if alert["name"] == "slow_response")
        alerts = {alert["name"]: alert for alert in merged([over_a_wire(good), over_a_wire(bad)])["alerts"]}
        assert alerts["slow_response"] == of_bad
        assert alerts["slow_response"]["state"] == "firing"
        assert alerts["low_confirmation"]["state"] == "ok"
        assert alerts["slow_recovery"]["value"] is None


async def test_what_only_some_hubs_have_counts_and_none_drains_until_all_do() -> None:
    async with running() as one, running() as other:
        one.hub.engine.count_close(1000, "peer")
        other.hub.engine.count_close(4503, "us")
        one.hub.engine.draining = True
        stats = merged([over_a_wire(one), over_a_wire(other)])
        assert stats["connections"]["closed"] == {"1000": 1, "4503": 1}
        assert not stats["draining"]
        one.hub.engine.draining = False


async def test_the_worst_state_of_the_store_and_its_size_once() -> None:
    async with running() as world:
        parts = [over_a_wire(world) for _ in range(2)]
        store = {"kind": "redis", "quarantined": 1, "bytes": 900, "commits": 5, "state": "ok", "error": None}
        parts[0]["stats"]["store"] = store
        parts[1]["stats"]["store"] = {**store, "bytes": 901, "state": "failing", "error": "away"}
        assert merged(parts)["store"] == {
            "kind": "redis",
            "quarantined": 1,
            "bytes": 901,
            "commits": 10,
            "state": "failing",
            "error": "away",
        }


async def test_what_only_a_newer_node_knows_is_told_all_the_same() -> None:
    async with running() as world:
        parts = [over_a_wire(world) for _ in range(2)]
        for part, state, value in zip(parts, ("ok", "molten"), (1.0, 2.0), strict=True):
            part["stats"]["store"] |= {"state": state, "error": None}
            part["stats"]["alerts"].append(
                {"name": "of_tomorrow", "state": "ok", "value": value, "since": None}
            )
        stats = merged(parts)
        assert stats["store"]["state"] == "molten"
        assert stats["alerts"][-1] == {"name": "of_tomorrow", "state": "ok", "value": 2.0, "since": None}
