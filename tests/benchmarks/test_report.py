"""The report: medians, ratios and verdicts, from runs whose figures are made up."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks read CPU clocks as Linux has them", allow_module_level=True)

from benchmarks import compare, report
from benchmarks.peers import all_peers


def book(*runs: dict[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(run["peer"] for run in runs)
    return {
        "machine": "a machine",
        "peers": {name: {"version": "1", "reliability": "some"} for name in names},
        "runs": list(runs),
    }


def run(peer: str, cpu_us: float, scenario: str = "A", **more: Any) -> dict[str, Any]:
    quiet = {"p50_us": 300, "p99_us": 900, "lost": 0, "foreign_cpu_s": 0.0}
    return {"peer": peer, "scenario": scenario, "cpu_us": cpu_us} | quiet | more


def row(text: str, *begin: str) -> str:
    """The row of a table that begins with these cells."""
    (found,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(begin) + " |"))
    return found


def test_cells_are_medians_with_their_range_and_ratios_are_of_medians() -> None:
    text = report.render(book(run("trio-ws", 40), run("trio-ws", 60), run("trio-ws", 44), run("picows", 88)))
    assert "**44.0** (40.0-60.0)" in row(text, "trio-ws", "**44.0** (40.0-60.0)")
    assert row(text, "picows", "**88.0**").endswith("| 0.50 | 1 |")


def test_goals_are_met_or_missed_in_themselves_and_against_a_peer() -> None:
    text = report.render(book(run("trio-ws", 49), run("picows", 48)))
    assert row(text, "A: CPU µs/event", "at most 50").endswith("| met |")
    assert row(text, "A: CPU µs/event", "at most 1 x picows = 48.00").endswith("| **missed** |")


def test_what_was_not_run_has_no_verdict() -> None:
    text = report.render(book(run("trio-ws", 49)))
    assert row(text, "A: CPU µs/event", "at most 1 x picows, which was not run").endswith("| - |")
    assert "### B" not in text
    assert "B: " not in text


def test_failed_runs_are_named_and_not_counted() -> None:
    failed = {"peer": "picows", "scenario": "A", "error": "TimeoutError()", "foreign_cpu_s": 0.0}
    text = report.render(book(run("trio-ws", 49), failed))
    assert "- A picows: TimeoutError()" in text
    assert row(text, "A: CPU µs/event", "at most 1 x picows, which was not run").endswith("| - |")


def test_noise_is_told() -> None:
    text = report.render(book(run("trio-ws", 49, foreign_cpu_s=3.25), run("trio-ws", 49)))
    assert "in 1 of 2 runs, 3.2 s" in text


def test_every_peer_has_scenarios_that_exist_and_a_name_of_its_own() -> None:
    peers = all_peers()
    assert {"trio-ws", "trio-ws-critical"} <= set(peers)
    assert all(set(peer.skip) < set(report.TABLES) for peer in peers.values())
    assert {goal.peer for goal in report.GOALS if goal.peer} <= set(peers)


def test_a_peer_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no peer carrier-pigeon"):
        compare.available(["carrier-pigeon"])
    assert [peer.name for peer in compare.available(["trio-ws"])] == ["trio-ws"]
