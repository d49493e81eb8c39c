"""Alerts: what fires, what does not, when it is over, and who is told."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio

from trio_ws.config import Config
from trio_ws.hub import Alert, open_hub
from trio_ws.hub.alerts import NAMES, STEPS, WAITING

from .peers import running, settled


class Told:
    """A handler that remembers."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    async def __call__(self, alert: Alert) -> None:
        self.alerts.append(alert)

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(alert.name, alert.state) for alert in self.alerts]


def state(hub: Any, name: str) -> dict[str, Any]:
    return next(alert for alert in hub.stats()["alerts"] if alert["name"] == name)


async def test_all_rules_are_told_in_one_shape() -> None:
    async with running() as world:
        alerts = world.hub.stats()["alerts"]
        assert [alert["name"] for alert in alerts] == list(NAMES)
        for alert in alerts:
            assert set(alert) == {"name", "state", "since", "value", "threshold", "unit", "summary"}
            assert (alert["state"], alert["since"]) == ("ok", None)
            assert alert["value"] in (None, 0)
            assert alert["summary"].endswith(".")
            assert alert["value"] is not None or alert["summary"].startswith("No")
        assert [(alert["threshold"], alert["unit"]) for alert in alerts] == [
            (1.5, "seconds"),
            (4.0, "seconds"),
            (0, "events"),
            (0.95, "ratio"),
        ]


async def test_a_slow_response_fires_once_and_is_over_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    told = Told()
    async with open_hub(wall_clock=lambda: 1000.0 + trio.current_time(), on_alert=told) as hub:
        response = hub.engine.confirmations.response
        for _ in range(19):
            response.record(2.0)
        await trio.sleep(11)
        assert state(hub, "slow_response")["state"] == "ok"  # too few
        assert state(hub, "slow_response")["value"] == pytest.approx(2, rel=0.06)
        response.record(2.0)
        began = trio.current_time()
        await trio.sleep(61)
        firing = state(hub, "slow_response")
        assert firing["state"] == "firing"
        assert 1000 + began < firing["since"] <= 1010 + began
        assert "2.0" in firing["summary"]
        assert told.changes == [("slow_response", "firing")]
        for _ in range(400):
            response.record(1.45)  # better, and not yet well
        await trio.sleep(21)
        assert state(hub, "slow_response")["state"] == "firing"
        await trio.sleep(400)  # the window has passed
        assert state(hub, "slow_response")["state"] == "ok"
        assert state(hub, "slow_response")["value"] is None
        assert told.changes == [("slow_response", "firing"), ("slow_response", "ok")]
    lines = [(r.levelname, r.alert, r.state) for r in caplog.records if hasattr(r, "alert")]
    assert lines == [("WARNING", "slow_response", "firing"), ("INFO", "slow_response", "ok")]


async def test_it_does_not_flap_about_its_threshold() -> None:
    told = Told()
    async with open_hub(on_alert=told) as hub:
        for n in range(200):
            for _ in range(20):
                hub.engine.recovery.record(4.4 if n % 2 else 3.8)
            await trio.sleep(10)
        assert told.changes == [("slow_recovery", "firing")]


async def test_confirmations_that_time_out() -> None:
    told = Told()
    async with open_hub(on_alert=told) as hub:
        confirmations = hub.engine.confirmations
        confirmations.confirmed, confirmations.timed_out = 95, 5
        await trio.sleep(11)
        assert state(hub, "low_confirmation")["value"] == 0.95
        assert told.changes == []
        confirmations.timed_out += 1
        await trio.sleep(11)
        assert told.changes == [("low_confirmation", "firing")]
        confirmations.confirmed += 1000
        await trio.sleep(11)
        assert told.changes[-1] == ("low_confirmation", "ok")


async def test_a_lost_critical_event_fires_at_once(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    async with open_hub(on_alert=told) as hub:
        await hub.publish("ada", "agent_started", ttl=2.5)
        await trio.sleep(3)
        assert told.changes == [("critical_loss", "firing")]
        assert told.alerts[0].value == 1
        assert told.alerts[0].summary == "1 critical event went unconfirmed."
        assert any(r.levelname == "ERROR" and "alert" in r.getMessage() for r in caplog.records)
        await trio.sleep(320)
        assert told.changes == [("critical_loss", "firing"), ("critical_loss", "ok")]


async def test_the_whole_way_from_slow_clients_to_the_alert() -> None:
    """Real events, and clients that answer late; those who were away don't count as slow."""
    async with running(alert_samples=5) as world:
        hub = world.hub
        for _ in range(6):
            await hub.publish("bob", "agent_started")
        await trio.sleep(100)
        world.peer(user="bob", acks=True).connect()
        await settled()
        assert hub.engine.confirmations.response.count == 6
        await trio.sleep(11)
        assert state(hub, "slow_response")["value"] < 0.1
        peer = world.peer().connect()
        for _ in range(6):
            await hub.publish("ada", "agent_started")
            await trio.sleep(3)
            peer.ack(peer.cursor)
        await trio.sleep(11)
        assert state(hub, "slow_response")["state"] == "firing"
        peer.die()


async def test_a_handler_that_fails_or_hangs_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def handler(alert: Alert) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("no")
        await trio.sleep_forever()

    async with open_hub(Config(event_ttl=1), on_alert=handler) as hub:
        for _ in range(WAITING + 3):
            hub.engine.books.critical_lost += 1
            hub.engine.alerts.look()
            await trio.sleep(400)
        receipt = await hub.publish("ada", "note")
        assert receipt.state == "held"
        await settled()
    assert calls == 2
    assert "on_alert failed" in caplog.text
    assert "on_alert is too slow" in caplog.text


async def test_what_is_kept_is_bounded() -> None:
    async with open_hub(Config(alert_window=30)) as hub:
        await trio.sleep(1000)
        assert len(hub.engine.alerts._samples) == STEPS + 1
        assert math.isfinite(trio.current_time())
