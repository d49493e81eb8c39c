"""The benchmark's own adapter, in small: what it counts is true. No time is asserted, and no peer need be installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks read CPU clocks as Linux has them", allow_module_level=True)

from benchmarks import scenarios
from benchmarks.peers import all_peers
from benchmarks.processes import System

pytestmark = pytest.mark.integration


@pytest.fixture(params=["trio-ws", "trio-ws-critical"])
def ours(request: pytest.FixtureRequest, tmp_path: Path):
    """This server, each kind of event, with a load generator that needs nothing but the test extra."""
    with System(all_peers()[request.param], tmp_path / "run", dialer="websockets") as system:
        yield system


def repeats_are_redeliveries(system: System, result: scenarios.Result) -> bool:
    """Critical events are sent again where a slow machine acks late; others are sent once."""
    return system.peer.name == "trio-ws-critical" or result["duplicates"] == 0


def test_stream_delivers_and_confirms_everything(ours: System) -> None:
    result = scenarios.stream(ours, sessions=3, rate=20, seconds=1)
    assert result["received"] == result["sent"] == result["acked"] == 60
    assert (result["lost"], result["gaps"], result["late"]) == (0, 0, 0)
    assert repeats_are_redeliveries(ours, result)
    assert result["cpu_us"] > 0


def test_burst_keeps_to_its_window_and_delivers_everything(ours: System) -> None:
    result = scenarios.burst(ours, sessions=2, each=300, window=64)
    assert result["received"] == result["acked"] == 600
    assert repeats_are_redeliveries(ours, result)


def test_fanout_reaches_everybody(ours: System) -> None:
    result = scenarios.fanout(ours, sessions=4, each=25)
    assert result["received"] == result["acked"] == 100


def test_storm_recovers_what_was_missed(ours: System) -> None:
    result = scenarios.storm(ours, sessions=3, each=5)
    assert result["received"] == 15
    assert (result["lost"], result["gaps"], result["late"]) == (0, 0, 0)
    assert result["dropped"] == result["resumed"] == 3
    assert result["recovered_s"] is not None
    assert repeats_are_redeliveries(ours, result)


def test_a_server_that_keeps_nothing_is_seen_to_lose(tmp_path: Path) -> None:
    with System(all_peers()["websockets-trio"], tmp_path / "run", dialer="websockets") as system:
        result = scenarios.storm(system, sessions=3, each=5)
    assert (result["received"], result["lost"]) == (0, 15)
    assert result["recovered_s"] is None
