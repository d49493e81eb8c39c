"""docs/monitoring: every metric and label that the rules and the dashboard ask for is one that `/metrics` has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from trio_ws.store import SqliteStore, Store

from .nodes import Nodes, OneCluster

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
RULES = MONITORING / "alerts.rules.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"

# Labels that Prometheus adds; `up` is its own metric.
ADDED = {"instance", "job"}


def rule_expressions() -> list[str]:
    """The `expr` of each rule; a folded one is joined."""
    text = RULES.read_text()
    found = re.findall(r"^( +)expr:(?: >-\n((?:\1 .*\n)+)| (.*)\n)", text, re.MULTILINE)
    return [" ".join((folded or plain).split()) for _, folded, plain in found]


def dashboard_expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    targets = [t["expr"] for panel in board["panels"] for t in panel.get("targets", ())]
    variables = [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    return targets + variables + [a["expr"] for a in board["annotations"]["list"]]


async def exposed(open_api: Any, store: Store) -> dict[str, dict[str, set[str]]]:
    """The samples that `/metrics` has: their labels, and the values of those."""
    samples: dict[str, dict[str, set[str]]] = {}
    async with open_api(store=store) as (hub, client):
        hub.engine.count_close(1000, "peer")
        hub.cluster = OneCluster("a", Nodes())
        for family in parse((await client.get("/metrics")).text):
            for sample in family.samples:
                labels = samples.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return samples


@pytest.mark.parametrize(
    "expressions", [rule_expressions(), dashboard_expressions()], ids=["rules", "dashboard"]
)
async def test_what_is_asked_for_is_exposed(open_api, expressions: list[str], tmp_path: Path) -> None:
    samples = await exposed(open_api, SqliteStore(tmp_path / "it.db"))
    assert len(expressions) >= 10
    for expression in expressions:
        asked = re.findall(r"\b((?:trio_ws|process)_\w+)(?:\{([^}]*)\})?", expression)
        assert asked or "up{" in expression, expression
        labels = set(ADDED)
        for name, selector in asked:
            assert name in samples, f"{name} in {expression}"
            labels |= samples[name].keys()
            for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', selector):
                if label not in ADDED:
                    assert operator == "="
                    assert value in samples[name][label], f"{label}={value} of {name}"
        for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in grouping.split(",")} <= labels, expression


def test_legends_name_labels_that_are_left() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", target["expr"]))
                assert label in grouped or "sum" not in target["expr"], target


def test_panels_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: Debian's package is prometheus")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
