"""`/metrics`: parsed as Prometheus parses it, held against its conventions, the figures and the documentation."""

from __future__ import annotations

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from trio_ws.config import Config
from trio_ws.core.pool import Ask
from trio_ws.core.refusals import REASONS
from trio_ws.event import Priority
from trio_ws.hub import Identity
from trio_ws.hub.runs import OUTCOMES
from trio_ws.store import SqliteStore

from .nodes import Nodes, OneCluster
from .test_calls import Link

DOCS = Path(__file__).resolve().parents[2] / "docs"
UNITS = ("_seconds", "_bytes", "_total", "_info")
VALUES: dict[str, set[str]] = {
    "class": {"low", "normal", "high", "settled", "critical", "other"},
    "state": {"active", "parked", "ok", "slow", "failing", "suspended"},
    "place": {"memory", "store"},
    "file": {"database", "wal"},
    "outcome": {"in_time", "late", "accepted", "rejected", "lost", *OUTCOMES},
    "path": {"fast", "slow"},
    "by": {"peer", "us", "network"},
    "reason": set(REASONS),
    "alert": {"slow_response", "slow_recovery", "critical_loss", "low_confirmation"},
    "compiled": {"true", "false"},
}


async def scraped(client: Any, **headers: str) -> dict[str, Any]:
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in parse(response.text)}


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    found = [s for f in families.values() for s in f.samples if s.name == name and s.labels == labels]
    assert len(found) == 1, (name, labels)
    return found[0].value


async def test_it_keeps_the_conventions(open_api, tmp_path: Path) -> None:
    async with open_api(store=SqliteStore(tmp_path / "it.db")) as (hub, client):
        hub.engine.count_close(1000, "peer")
        hub.cluster = OneCluster("a", Nodes())
        families = await scraped(client)
        own = {name: family for name, family in families.items() if not name.startswith("process_")}
        assert len(own) > 50
        for name, family in own.items():
            assert re.fullmatch(r"trio_ws_[a-z_]+", name)
            assert family.documentation.endswith(".")
            assert family.samples, name
            if family.type == "histogram":
                assert name.endswith("_seconds")
                continue
            assert family.type in ("counter", "gauge")
            for sample in family.samples:
                assert sample.name.endswith("_total") == (family.type == "counter")
                assert math.isfinite(sample.value)
                for label, of in sample.labels.items():
                    assert label in ("code", "version") or of in VALUES[label], (name, label, of)
        assert {"process_cpu_seconds", "process_start_time_seconds", "process_open_fds"} <= families.keys()


async def test_figures_are_those_of_the_hub(open_api) -> None:
    config = Config(max_events_per_user=2)
    async with open_api(config) as (hub, client):
        hub.publish_nowait("ada", "note", priority=Priority.LOW)
        for _ in range(4):
            hub.publish_nowait("ada", "note", priority=Priority.HIGH)
        attachment = hub.attach(Identity("ada"), Ask(), Link())
        attachment.flush(hub.engine.clock())
        attachment.session.ack(5, hub.engine.clock())
        hub.publish_nowait("bob", "agent_started")
        hub.engine.recovery.record(0.3)
        hub.engine.refusals.count("origin")
        families = await scraped(client)
        assert value(families, "trio_ws_events_accepted_total") == 6
        assert value(families, "trio_ws_events_evicted_total", **{"class": "low"}) == 1
        assert value(families, "trio_ws_events_evicted_total", **{"class": "high"}) == 2
        assert value(families, "trio_ws_buffer_events", **{"class": "settled"}) == 2
        assert value(families, "trio_ws_buffer_events", **{"class": "critical"}) == 1
        assert value(families, "trio_ws_buffer_events", **{"class": "other"}) == 0
        assert value(families, "trio_ws_connections") == 1
        assert value(families, "trio_ws_buffer_bytes") == hub.stats()["buffer"]["bytes"]
        assert value(families, "trio_ws_recovery_seconds_count") == 1
        assert value(families, "trio_ws_recovery_seconds_bucket", le="0.25") == 0
        assert value(families, "trio_ws_recovery_seconds_bucket", le="0.5") == 1
        assert value(families, "trio_ws_recovery_seconds_bucket", le="+Inf") == 1
        refused = {s.labels["reason"]: s.value for s in families["trio_ws_refusals"].samples}
        assert refused == dict.fromkeys(REASONS, 0) | {"origin": 1}
        assert value(families, "trio_ws_alert_firing", alert="critical_loss") == 0


async def test_figures_are_those_of_the_store(open_api, tmp_path: Path) -> None:
    path = tmp_path / "it.db"
    async with open_api(store=SqliteStore(path)) as (hub, client):
        for user in ("ada", "bob"):
            await hub.publish(user, "agent_started")
        families = await scraped(client)
        for state in ("ok", "slow", "failing", "suspended"):
            assert value(families, "trio_ws_store_state", state=state) == (state == "ok")
        commits = value(families, "trio_ws_store_commits_total")
        assert commits >= 2
        assert value(families, "trio_ws_store_commit_seconds_count") == commits
        assert value(families, "trio_ws_store_commit_errors_total") == 0
        assert value(families, "trio_ws_store_events_written_total") == 2
        assert value(families, "trio_ws_store_quarantined") == 0
        assert value(families, "trio_ws_store_bytes", file="database") > 0
        assert value(families, "trio_ws_store_bytes", file="wal") > 0
        assert value(families, "trio_ws_users", place="memory") == 2
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE events SET payload = 'x' WHERE user = 'ada'")
        db.commit()
    async with open_api(store=SqliteStore(path)) as (hub, client):
        while hub.stats()["store"]["events_unread"] is None:  # noqa: ASYNC110
            await trio.sleep(0.01)
        families = await scraped(client)
        assert value(families, "trio_ws_users", place="store") == 2
        assert value(families, "trio_ws_store_events_asleep") == 2
        await hub.load("bob")
        await hub.load("ada")
        families = await scraped(client)
        assert value(families, "trio_ws_users", place="store") == 0
        assert value(families, "trio_ws_users", place="memory") == 2
        assert value(families, "trio_ws_store_quarantined") == 1


async def test_without_a_store_there_are_no_figures_of_one(open_api) -> None:
    async with open_api() as (_, client):
        assert not any(name.startswith("trio_ws_store") for name in await scraped(client))


async def test_histograms_are_cumulative(open_api) -> None:
    async with open_api() as (hub, client):
        for n in range(2000):
            hub.engine.confirmations.latency.record(1e-5 * 1.01**n)
        families = await scraped(client)
        samples = families["trio_ws_confirmation_seconds"].samples
        buckets = [s for s in samples if s.name.endswith("_bucket")]
        counts = [s.value for s in buckets]
        assert counts == sorted(counts)
        assert counts[-1] == 2000 == value(families, "trio_ws_confirmation_seconds_count")
        bounds = [float(s.labels["le"]) for s in buckets]
        assert bounds == sorted(bounds)
        assert 1.5 in bounds  # the threshold of the alert, so that Prometheus can tell


async def test_openmetrics_for_who_asks(open_api) -> None:
    async with open_api() as (_, client):
        response = await client.get(
            "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        names = {family.name for family in parse_openmetrics(response.text)}
        assert {"trio_ws_events_accepted", "trio_ws_response_seconds"} <= names


async def test_a_key_is_needed_and_nothing_is_global(open_api) -> None:
    async with open_api(api_key="k") as (_, client), open_api() as (other, client2):
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"authorization": "Bearer k"})).status_code == 200
        other.publish_nowait("ada", "note")
        response = await client.get("/metrics", headers={"authorization": "Bearer k"})
        assert "trio_ws_events_accepted_total 0.0" in response.text
        assert "trio_ws_events_accepted_total 1.0" in (await client2.get("/metrics")).text
        assert not any(family.name.startswith("trio_ws") for family in REGISTRY.collect())


async def test_no_close_code_of_a_peer_makes_a_label(open_api) -> None:
    async with open_api() as (hub, client):
        for code in range(3000, 5000):
            hub.engine.count_close(code, "peer")
        families = await scraped(client)
        codes = {s.labels["code"] for s in families["trio_ws_connections_closed"].samples}
        assert "other" in codes
        assert len(codes) < 20


async def test_the_documentation_has_each_metric_and_no_other(open_api, tmp_path: Path) -> None:
    async with open_api(store=SqliteStore(tmp_path / "it.db")) as (hub, client):
        hub.cluster = OneCluster("a", Nodes())
        families = await scraped(client)
        exposed = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in families.values()
            if family.name.startswith("trio_ws")
        }
        rows = re.findall(r"^\| `(trio_ws_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
        assert sorted(rows) == sorted(exposed)


@pytest.mark.parametrize("reads", [1, 3])
async def test_reading_changes_nothing(open_api, reads: int) -> None:
    async with open_api() as (hub, client):
        hub.publish_nowait("ada", "note")
        before = hub.stats()
        for _ in range(reads):
            await scraped(client)
        after = hub.stats()
        assert {**before, "uptime": 0} == {**after, "uptime": 0}
